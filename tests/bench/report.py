"""The bench's report: each figure as measured in each run, beside its aim."""

import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

_BUSY = 0.5
"""A load average of the machine above which the figures are not reliable."""


@dataclass(frozen=True)
class Aim:
    """A lower or upper bound for the median of a figure."""

    bound: float
    at_least: bool

    def is_met(self, value: float) -> bool:
        """Return whether a figure meets the aim."""
        return value >= self.bound if self.at_least else value <= self.bound

    def shown(self, form: str) -> str:
        """Return the aim as the table shows it."""
        return f"{'≥' if self.at_least else '≤'} {form.format(self.bound)}"


def at_least(bound: float) -> Aim:
    """Return an aim with a lower bound."""
    return Aim(bound, at_least=True)


def at_most(bound: float) -> Aim:
    """Return an aim with an upper bound."""
    return Aim(bound, at_least=False)


@dataclass
class Row:
    """One figure of one database, with its value from each run; `form` is the format string of a value."""

    what: str
    database: str
    form: str
    aim: Aim | None
    values: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median meets the aim; None without an aim or without a value."""
        return None if self.aim is None or not self.values else self.aim.is_met(statistics.median(self.values))

    def cells(self) -> tuple[str, ...]:
        """Return the row's cells of the table."""
        aim = self.aim.shown(self.form) if self.aim is not None else ""
        met = {True: "[green]met[/]", False: "[red]not met[/]", None: ""}[self.met]
        return self.what, self.database, " ".join(filter(None, (self._spread(), self.note))), aim, met

    def summary(self) -> dict[str, object]:
        """Return the row for the JSON file."""
        spread = (min(self.values), statistics.median(self.values), max(self.values)) if self.values else None
        aim = {"bound": self.aim.bound, "at_least": self.aim.at_least} if self.aim is not None else None
        names = {"what": self.what.strip(), "database": self.database, "note": self.note}
        return {**names, "values": self.values, "low_median_high": spread, "aim": aim, "met": self.met}

    def _spread(self) -> str:
        if not self.values:
            return ""
        low, middle, high = (
            self.form.format(value) for value in (min(self.values), statistics.median(self.values), max(self.values))
        )
        return f"{low} … [bold]{middle}[/] … {high}" if len(self.values) > 1 else f"[bold]{middle}[/]"


class Report:
    """The rows, in the order in which they were first measured. An indented name refers to the row above it."""

    def __init__(self, load_before: float) -> None:
        self._load_before = load_before
        self._rows: dict[tuple[str, str], Row] = {}

    def add(self, what: str, database: str, value: float, *, form: str, aim: Aim | None = None) -> None:
        """Add a figure's value from one run."""
        self._row(what, database, form, aim).values.append(value)

    def note(self, what: str, database: str, note: str, *, form: str = "", aim: Aim | None = None) -> None:
        """Add a note to a row, such as why it has no value."""
        self._row(what, database, form, aim).note = note

    def show(self, seconds: float) -> None:
        """Print the table; `seconds` is how long the whole bench took."""
        table = Table("figure", "database", "low … median … high", "aim", "")
        for row in self._rows.values():
            table.add_row(*row.cells())
        missed = [row for row in self._rows.values() if row.met is False]
        console = Console(width=None if Console().is_terminal else 160)
        console.print(table)
        console.print(f"{_count(self._rows.values())} aims, {len(missed)} not met; measured in {seconds:.0f} s")
        if self._load_before > _BUSY:
            console.print(
                f"[yellow]The machine was busy at the start (load {self._load_before:.1f}). Measure again.[/]"
            )

    def write(self, file: Path, seconds: float) -> None:
        """Write the figures as JSON."""
        machine = {
            "load_before": self._load_before,
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        }
        rows = [row.summary() for row in self._rows.values()]
        file.write_bytes(
            orjson.dumps({"machine": machine, "seconds": round(seconds), "rows": rows}, option=orjson.OPT_INDENT_2)
        )

    def _row(self, what: str, database: str, form: str, aim: Aim | None) -> Row:
        return self._rows.setdefault((what, database), Row(what, database, form, aim))


def _count(rows: Iterable[Row]) -> int:
    return sum(row.met is not None for row in rows)
