"""SIGHUP where one process serves alone: it cannot be replaced without a pause, so it goes on.

With several workers the supervisor replaces them (`receiver.serving.supervisor`).
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from types import FrameType

from receiver.telemetry.log import get_logger

log = get_logger("serving.hangup")


def go_on_at_hangup(stop: Callable[[int, FrameType | None], None], reloaded: Callable[[], None]) -> None:
    """From now on SIGHUP is logged and ignored, unless the terminal of this process is gone: then it calls `stop`.

    `reloaded` is called on the running loop when the signal was ignored.
    """
    loop = asyncio.get_running_loop()
    had_terminal = sys.stderr.isatty()

    def note() -> None:
        log.warning(
            "SIGHUP ignored",
            advice="with --workers it replaces the workers one after the other; one process is restarted to change it",
        )
        reloaded()

    def handle(_number: int, frame: FrameType | None) -> None:
        if had_terminal and not sys.stderr.isatty():
            stop(signal.SIGTERM, frame)
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(note)

    signal.signal(signal.SIGHUP, handle)
