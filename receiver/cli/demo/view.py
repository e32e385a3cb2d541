"""The demo as it is seen: a live table on a terminal, a line a second elsewhere, nothing for programs."""

import sys
import time
from types import TracebackType
from typing import Any, Protocol

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from receiver.cli.demo.progress import DemoProgress

_LINE_SECONDS = 1.0
_STATES = ("queued", "staged", "pending", "processing", "completed", "failed", "cancelled")


class View(Protocol):
    """Shows the demo while it runs; a context, which takes the display away at the end."""

    def __enter__(self) -> "View": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def say(self, progress: DemoProgress, text: str) -> None:
        """Something happened."""
        ...

    def show(self, progress: DemoProgress) -> None:
        """The numbers have changed, perhaps."""
        ...


def view_for(as_json: bool) -> View:
    """Return the view that fits whoever looks."""
    if as_json:
        return Silence()
    return LiveTable() if sys.stdout.isatty() else Lines()


class Silence:
    """Shows nothing."""

    def __enter__(self) -> "Silence":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, progress: DemoProgress, text: str) -> None:
        """Keep it on the progress alone."""
        progress.now = text

    def show(self, progress: DemoProgress) -> None:
        """Show nothing."""


class Lines(Silence):
    """What happens as lines, and the numbers once a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def say(self, progress: DemoProgress, text: str) -> None:
        """Print it."""
        super().say(progress, text)
        _print_line(progress, text)

    def show(self, progress: DemoProgress) -> None:
        """Print the numbers, if the last ones are old."""
        if time.monotonic() - self._last >= _LINE_SECONDS:
            self._last = time.monotonic()
            _print_line(progress, ", ".join(f"{name} {value}" for name, value in _numbers(progress)))


class LiveTable(Silence):
    """A table that is drawn again and again."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> "LiveTable":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, progress: DemoProgress, text: str) -> None:
        """Leave a line above the table."""
        super().say(progress, text)
        self._console.print(Text.assemble((f"{progress.seconds:5.1f} s  ", "dim"), text))
        self.show(progress)

    def show(self, progress: DemoProgress) -> None:
        """Draw the table."""
        self._live.update(_drawing(progress), refresh=True)


def _print_line(progress: DemoProgress, text: str) -> None:
    typer.echo(f"{progress.seconds:5.1f} s  {text}")
    sys.stdout.flush()


def _drawing(progress: DemoProgress) -> Any:
    numbers = Table.grid(padding=(0, 2))
    numbers.add_column(style="dim")
    numbers.add_column(justify="right", style="bold")
    for name, value in _numbers(progress):
        numbers.add_row(name, str(value))
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(total=progress.wanted, completed=progress.ended, width=40),
        f"{progress.ended} of {progress.wanted} ended",
    )
    service = "green" if progress.service == "running" else "red bold"
    return Group("", bar, numbers, Text.assemble("the service is ", (progress.service, service), f" · {progress.now}"))


def _numbers(progress: DemoProgress) -> list[tuple[str, int]]:
    notices, heard = progress.notices, progress.heard
    states = [(f"tasks {state}", progress.by_status[state]) for state in _STATES if progress.by_status[state]]
    return [
        *states,
        ("provider's webhooks sent", notices["sent"]),
        ("lost on purpose", notices["lost"]),
        ("polls", progress.sandbox.get("polls", 0)),
        ("deliveries heard", heard.get("received", 0)),
        ("refused by the subscriber", heard.get("refused", 0)),
        ("repeats ignored", heard.get("repeats", 0)),
    ]
