"""What a command prints: JSON for programs, tables for people, and spinners only if a person watches a terminal.

Everything that a command prints passes here, and what may come from outside is cleaned here (`receiver.printable`):
other modules of the command line print with nothing else (`tests/unit/test_cli_output.py`).
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from receiver.printable import printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]

_PIPED_WIDTH = 4096
"""The width of output that does not go to a terminal: nothing is cut or folded there."""
_MARK_COLOURS = {"ok": "green", "look": "yellow", "bad": "red"}
_STATUS_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "processing": "cyan"}


def echo(text: str = "", *, err: bool = False, lines: bool = False) -> None:
    """Print a line on stdout, or stderr with `err`; with `lines`, a text of ours that has line breaks of its own."""
    typer.echo(printable(text, lines=lines), err=err)


def ask(text: str, default: str, *, is_secret: bool = False) -> str:
    """Return a person's answer; the default for an empty one. A secret is neither shown nor is its default."""
    answer: str = typer.prompt(
        printable(text), default=default, hide_input=is_secret, show_default=bool(default) and not is_secret
    )
    return answer


def confirm(question: str) -> bool:
    """Ask the person at the terminal; return whether the answer is yes, which it has to be in words."""
    return typer.confirm(printable(question), err=True)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(printable_json(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()))


def json_line(value: Any) -> str:
    """Return a value as one line of JSON, with its line break, which a terminal only shows."""
    return f"{printable_json(orjson.dumps(value).decode())}\n"


def print_json_line(value: Any) -> None:
    """Print a value as one line of JSON."""
    print_raw(json_line(value))


def print_raw(text: str) -> None:
    """Print a text that has been cleaned, as it is."""
    typer.echo(text, nl=False)


def watched_console() -> "Console":
    """Return where what is shown to a person who watches is drawn: stderr."""
    from rich.console import Console

    return Console(stderr=True)


def print_result(value: Any, as_json: bool, print_text: Callable[[Any], None]) -> None:
    """Print a value as JSON, or with `print_text` for a person."""
    if as_json:
        print_json(value)
    else:
        print_text(value)


def print_page(page: Mapping[str, Any], as_json: bool, print_items: Callable[[Any], None]) -> None:
    """Print a page of a list as JSON, or its items with `print_items` and a hint if there are more of them."""
    if as_json:
        print_json(page)
        return
    print_items(page["data"])
    if page["has_more"]:
        echo("There are more: use --limit N or --all.", err=True)


def print_marked(mark: str, text: str, *, width: int) -> None:
    """Print a line that begins with a word, coloured on a terminal: `ok`, `look`, `bad` or another."""
    typer.echo(typer.style(f"{mark:<{width}}", fg=_MARK_COLOURS.get(mark), bold=mark == "bad") + printable(text))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under their headings: as wide as the terminal; without one, nothing is cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        # The first column holds ids, which people copy: they stay on one line.
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(table)


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> "Table":
    """Return a table to be drawn as a part of a view."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(*("" if value is None else cell(value) for value in row))
    return table


def shown_console() -> "Console":
    """Return where a view is drawn: stdout; without a terminal, nothing is cut."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)


def print_view(view: "RenderableType") -> None:
    """Print a view once."""
    shown_console().print(view)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one field a line, without the fields that have no value."""
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        if value not in (None, "", [], {}):
            table.add_row(name, cell(value, lines=True))  # in the second column, so no line begins with it
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(table)


def cell(value: Any, *, lines: bool = False) -> Any:
    """Return a value as rich text. Markup in it has no effect, and it is cleaned; with `lines`, line breaks stay."""
    from rich.text import Text

    if value is None:
        return Text("-", style="dim")
    if isinstance(value, dict | list):
        value, lines = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode(), True
    text = printable(str(value), lines=lines)
    return Text(text, style=_STATUS_STYLES.get(text, ""))


def age(moment: str | None) -> str | None:
    """Return how long ago an ISO 8601 time was, such as `42s`, `7m`, `3h` or `12d`; other text as it is."""
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


def size_text(size: int) -> str:
    """Return a number of bytes for a person, such as `512 bytes`, `1.5 MiB` or `2.0 GiB`."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 2**power:
            return f"{size / 2**power:.1f} {unit}"
    return f"{size} bytes"


def watched(as_json: bool) -> bool:
    """Return whether a person watches: only then are spinners and progress bars shown, on stderr."""
    return not as_json and sys.stderr.isatty()


@contextmanager
def spinner(text: str, as_json: bool) -> Iterator[None]:
    """Show a spinner with a text while the context lasts, if a person watches."""
    if not watched(as_json):
        yield
        return
    with watched_console().status(text):
        yield
