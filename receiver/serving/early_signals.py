"""Signals that arrive while the service starts.

Their handlers are set before anything is imported that takes time: a process whose id is 1, as in a container, loses
each signal for which it has none.
"""

import signal
from types import FrameType


class _Start:
    """Whether a signal has asked the start to end."""

    is_ended = False


def handle_early_signals() -> None:
    """From now on SIGTERM and SIGINT end the start with exit status 0, and SIGHUP does nothing."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _end)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # else it is ignored already, as `nohup` asks for
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)


def end_if_asked() -> None:
    """Raise `SystemExit` if a signal came. Python discards what a handler raises at some places, as in a finalizer."""
    if _Start.is_ended:
        raise SystemExit(0)


def _end(_number: int, _frame: FrameType | None) -> None:
    _Start.is_ended = True
    raise SystemExit(0)
