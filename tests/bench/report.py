"""What was measured: each figure as it came out in each run, beside its aim."""

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
"""A load beside which figures say little."""


@dataclass(frozen=True)
class Aim:
    """A bound that the median is to keep."""

    bound: float
    at_least: bool

    def is_met(self, value: float) -> bool:
        """Say whether a figure keeps it."""
        return value >= self.bound if self.at_least else value <= self.bound

    def shown(self, form: str) -> str:
        """Return it as the table shows it."""
        return f"{'≥' if self.at_least else '≤'} {form.format(self.bound)}"


def at_least(bound: float) -> Aim:
    """Return the aim of what should be great."""
    return Aim(bound, at_least=True)


def at_most(bound: float) -> Aim:
    """Return the aim of what should be small."""
    return Aim(bound, at_least=False)


@dataclass
class Row:
    """One figure of one database, as it came out in each run; `form` is how a value is written."""

    what: str
    database: str
    form: str
    aim: Aim | None
    values: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the aim; None where there is no aim, or nothing was measured."""
        return None if self.aim is None or not self.values else self.aim.is_met(statistics.median(self.values))

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        aim = self.aim.shown(self.form) if self.aim is not None else ""
        met = {True: "[green]met[/]", False: "[red]not met[/]", None: ""}[self.met]
        return self.what, self.database, " ".join(filter(None, (self._reached(), self.note))), aim, met

    def summary(self) -> dict[str, object]:
        """Return it for the JSON file."""
        spread = (min(self.values), statistics.median(self.values), max(self.values)) if self.values else None
        aim = {"bound": self.aim.bound, "at_least": self.aim.at_least} if self.aim is not None else None
        names = {"what": self.what.strip(), "database": self.database, "note": self.note}
        return {**names, "values": self.values, "low_median_high": spread, "aim": aim, "met": self.met}

    def _reached(self) -> str:
        if not self.values:
            return ""
        low, middle, high = (
            self.form.format(value) for value in (min(self.values), statistics.median(self.values), max(self.values))
        )
        return f"{low} … [bold]{middle}[/] … {high}" if len(self.values) > 1 else f"[bold]{middle}[/]"


class Report:
    """The rows, in the order in which they were first measured; a name that is indented belongs to what is above."""

    def __init__(self, load_before: float) -> None:
        self._load_before = load_before
        self._rows: dict[tuple[str, str], Row] = {}

    def add(self, what: str, database: str, value: float, *, form: str, aim: Aim | None = None) -> None:
        """Add one run's figure."""
        self._row(what, database, form, aim).values.append(value)

    def note(self, what: str, database: str, note: str, *, form: str = "", aim: Aim | None = None) -> None:
        """Say something of a row, such as why there is no figure."""
        self._row(what, database, form, aim).note = note

    def show(self, seconds: float) -> None:
        """Print the table."""
        table = Table("measured in one run", "database", "low … median … high", "aim", "")
        for row in self._rows.values():
            table.add_row(*row.cells())
        missed = [row for row in self._rows.values() if row.met is False]
        console = Console(width=None if Console().is_terminal else 160)
        console.print(table)
        console.print(f"{_count(self._rows.values())} aims, {len(missed)} not met; {seconds:.0f} s in all")
        if self._load_before > _BUSY:
            console.print(
                f"[yellow]The machine was busy when this began (load {self._load_before:.1f}): measure again.[/]"
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
