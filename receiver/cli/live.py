"""A view that fills the terminal and is drawn again and again until `q` or Ctrl-C is pressed."""

import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from receiver.cli.console import shown_console
from receiver.cli.failure import ServiceUnreachable

if TYPE_CHECKING:
    from rich.console import RenderableType

_QUIT = b"qQ\x03"
_LOOK_SECONDS = 0.2


def has_terminal() -> bool:
    """Return whether a person looks at a terminal and can press keys in it."""
    return sys.stdout.isatty() and sys.stdin.isatty()


def watch(draw: Callable[[], "RenderableType"], *, every_seconds: float, is_due: Callable[[], bool]) -> None:
    """Show what `draw` returns until `q` or Ctrl-C: every `every_seconds`, and as soon as `is_due` says so.

    A service that cannot be reached after the first time is asked again, and the view says why meanwhile.
    """
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    view = draw()
    with (
        suppress(KeyboardInterrupt),
        _keys(),
        Live(view, console=shown_console(), screen=True, auto_refresh=False) as live,
    ):
        while not _is_quit_within(every_seconds, is_due):
            try:
                view = draw()
                live.update(view, refresh=True)
            except ServiceUnreachable as failure:
                live.update(Group(Text(failure.message, style="red"), view), refresh=True)


def _is_quit_within(seconds: float, is_due: Callable[[], bool]) -> bool:
    """Return True when the user wants to end, False when the time is over or the view is due."""
    looks = max(1, round(seconds / _LOOK_SECONDS))
    for _ in range(looks):
        ready, _, _ = select.select([sys.stdin], [], [], _LOOK_SECONDS)
        if ready:
            pressed = os.read(sys.stdin.fileno(), 32)
            if not pressed or any(each in _QUIT for each in pressed):
                return True
        if is_due():
            return False
    return False


@contextmanager
def _keys() -> Iterator[None]:
    """Have keys arrive without Enter, and not shown; the terminal is as before at the end."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
