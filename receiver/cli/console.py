"""What a command prints: JSON for programs, tables for people, and signs of life on a terminal only."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]

_PIPED_WIDTH = 4096
"""Wide enough that nothing is cut or folded where no person reads."""
_STATUS_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "processing": "cyan"}


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under their headings; on a terminal as wide as it is, elsewhere nothing is cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        # The first one is an id, which a person copies.
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(table)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one a line; what has no value is left out."""
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        if value not in (None, "", [], {}):
            table.add_row(name, cell(value))
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(table)


def cell(value: Any) -> Any:
    """Return a value as rich text: no markup in it is obeyed, and no control character reaches the terminal."""
    from rich.text import Text

    if value is None:
        return Text("-", style="dim")
    if isinstance(value, dict | list):
        value = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    text = "".join(
        letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in str(value)
    )
    return Text(text, style=_STATUS_STYLES.get(text, ""))


def age(moment: str | None) -> str | None:
    """Return how long ago an ISO 8601 moment was, such as `42s`, `7m`, `3h` or `12d`."""
    if not moment:
        return None
    try:
        seconds = int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    except (TypeError, ValueError):
        return moment
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"


def watched(as_json: bool) -> bool:
    """Say whether a person watches: then there may be spinners and bars, on stderr."""
    return not as_json and sys.stderr.isatty()


@contextmanager
def spinner(text: str, as_json: bool) -> Iterator[None]:
    """Show that something is being done, if a person watches."""
    if not watched(as_json):
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
