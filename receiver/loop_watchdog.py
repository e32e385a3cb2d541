"""Watches the event loop: measures how late it is, and logs where it was when it was held for too long.

Everything in a process shares one loop, so whatever holds it delays every request. A callback is scheduled again and
again, and the time by which it comes late is the loop's lag. A thread looks at the stack of the loop's thread while the
callback is overdue: afterwards nothing would tell what had held it. It looks again and again, for what held the loop at
first need not be what held it longest. The stack has places in the code and no values.
"""

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from msgspec import Struct

from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import loop_lag, loop_stalls

LONGEST_SECONDS = 0.2
"""A lag above this is a stall, which is logged."""
_INTERVAL = 0.05
_LOOK_SECONDS = LONGEST_SECONDS / 2
"""How often the thread looks, and how late the callback must be for it to look at the stack."""
_LOG_SECONDS = 5.0
"""At most one record in this time."""
_MOST_FRAMES = 20
_MOST_STACKS = 100
"""Of one stall."""

log = get_logger("loop_watchdog")


class Stall(Struct, frozen=True):
    """The loop was held for `seconds`; of these its thread computed for `cpu_seconds`, the rest it waited.

    It waits for a disk, for other threads or, on a busy machine, for a processor. `stack` has the places where it was
    seen most often, the innermost last; empty if the thread could not look.
    """

    seconds: float
    cpu_seconds: float
    stack: tuple[str, ...]


class LoopWatchdog:
    """Watches the running event loop. `on_stall` is told of every stall, also of those that are not logged."""

    def __init__(self, on_stall: Callable[[Stall], None] = lambda stall: None) -> None:
        self._on_stall = on_stall
        self._ended = threading.Event()
        self._thread_id = 0
        self._due = self._cpu = 0.0
        self._seen: Counter[tuple[str, ...]] = Counter()
        """How often the loop's thread was seen at each stack since the callback was due."""
        self._lock = threading.Lock()
        """For what both threads use: `_due` and `_seen`."""
        self._handle: asyncio.TimerHandle | None = None
        self._silent_until = 0.0
        self._unlogged = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the running loop until the end of the block."""
        self._thread_id = threading.get_ident()
        self._schedule()
        thread = threading.Thread(target=self._look, name="ringback-watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            if self._handle is not None:
                self._handle.cancel()
            thread.join()

    def _schedule(self) -> None:
        with self._lock:
            self._due, self._seen = time.monotonic() + _INTERVAL, Counter()
        self._cpu = time.thread_time()
        self._handle = asyncio.get_running_loop().call_later(_INTERVAL, self._on_time)

    def _on_time(self) -> None:
        lag = max(0.0, time.monotonic() - self._due)
        cpu_seconds, seen = time.thread_time() - self._cpu, self._seen
        self._schedule()  # from here on the thread does not change what was seen
        stall = Stall(lag, cpu_seconds, _longest(seen))
        loop_lag.observe(lag)
        if lag > LONGEST_SECONDS:
            self._report(stall)

    def _report(self, stall: Stall) -> None:
        loop_stalls.inc()
        self._on_stall(stall)
        now = time.monotonic()
        if now < self._silent_until:
            self._unlogged += 1
            return
        log.warning(
            "event loop stalled",
            seconds=round(stall.seconds, 3),
            cpu_seconds=round(stall.cpu_seconds, 3),
            others_not_logged=self._unlogged,
            places=list(stall.stack),  # `stack` is what structlog calls a text of its own
        )
        self._silent_until, self._unlogged = now + _LOG_SECONDS, 0

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            with self._lock:
                if time.monotonic() - self._due > _LOOK_SECONDS and len(self._seen) < _MOST_STACKS:
                    self._seen[_places(sys._current_frames().get(self._thread_id))] += 1


def _longest(seen: Counter[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the stack that was seen most often, but for the line that its innermost function was at."""
    functions: Counter[tuple[str, ...]] = Counter()
    for stack, times in seen.items():
        functions[_without_line(stack)] += times
    longest = functions.most_common(1)
    return next((stack for stack in seen if longest and _without_line(stack) == longest[0][0]), ())


def _without_line(stack: tuple[str, ...]) -> tuple[str, ...]:
    return (*stack[:-1], *(place.rpartition(" ")[2] for place in stack[-1:]))


def _places(frame: FrameType | None) -> tuple[str, ...]:
    found: list[str] = []
    while frame is not None and len(found) < _MOST_FRAMES:
        file = "/".join(frame.f_code.co_filename.rsplit("/", 3)[1:])
        found.append(f"{file}:{frame.f_lineno} {frame.f_code.co_qualname}")
        frame = frame.f_back
    return tuple(reversed(found))
