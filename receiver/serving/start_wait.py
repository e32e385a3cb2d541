"""Waits at the start for a database that is not there yet: after a reboot, or beside one that starts or is migrated."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TypeVar

from receiver.errors import DatabaseAway
from receiver.telemetry.log import get_logger

log = get_logger("serving.start_wait")

_FIRST_DELAY, _LONGEST_DELAY = 0.2, 2.0
"""Seconds from one try to the next, doubled from the first to the longest."""

Result = TypeVar("Result")


async def when_ready(work: Callable[[], Awaitable[Result]], *, seconds: float) -> Result:
    """Return what `work` returns, tried again while it raises `DatabaseAway`, for these `seconds` at most.

    Then that is raised, and any other error at once. SIGTERM ends the process while it waits.
    """
    loop = asyncio.get_running_loop()
    began, delay, reason = loop.time(), _FIRST_DELAY, ""
    with ExitStack() as stack:
        while True:
            try:
                result = await work()
            except DatabaseAway as error:
                left = began + seconds - loop.time()
                if left <= 0:
                    raise
                if not reason:
                    stack.enter_context(_ended_by_sigterm())
                if reason != error.message:  # it may be away first, and then be migrated
                    reason = error.message
                    log.warning("waiting for the database", seconds=round(left), reason=reason)
                await asyncio.sleep(min(delay, left))
                delay = min(2 * delay, _LONGEST_DELAY)
            else:
                if reason:
                    log.info("database is there", seconds=round(loop.time() - began, 1))
                return result


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process, also where it is the first of a container, which no signal ends by itself."""
    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
