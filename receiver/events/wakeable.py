"""A wait of one asyncio task that others end, small enough for thousands that wait for hours."""

import asyncio
from contextvars import Context, ContextVar
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

STEP_SECONDS = 0.001
"""The event loop's time goes on in such steps, and a timer is rounded to them: less than one is no time to wait."""
_LEAST_ENTRIES = 1024
_NO_CONTEXT = Context()
"""That of timers that serve many: a copy of the present one would hold what one of them had in it."""


class Leaver(Protocol):
    """A client that may be gone before a wait for it ends."""

    def begin_wait(self) -> None:
        """Have the present task cancelled when the client is gone, and at once if it is."""

    def end_wait(self) -> None:
        """Have it go on even so: a query that is broken off may cost its connection to the database."""


LEAVER: ContextVar[Leaver | None] = ContextVar("leaver", default=None)
"""Who may be gone before the present task ends a wait, if that matters."""


class TimeOuts:
    """Ends many waits at their times by one timer of the event loop: one for each would hold half a KiB."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, asyncio.Future[None]]] = []
        """The earliest first; an entry stays for a while after what it would end has ended otherwise."""
        self._most = _LEAST_ENTRIES
        """With this many entries, those whose waits have ended are removed."""
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many entries are held."""
        return len(self._due)

    def set(self, waiter: "asyncio.Future[None]", seconds: float) -> None:
        """End the wait for `waiter` in `seconds`, up to `STEP_SECONDS` early, if it has not ended by then."""
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds
        if len(self._due) >= self._most:
            self._remove_ended()
        if self._timer is None or not self._due or at < self._due[0][0]:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(at, self._end_due, context=_NO_CONTEXT)
        heappush(self._due, (at, next(self._numbers), waiter))

    def _remove_ended(self) -> None:
        """Remove the waits that have ended. The next time is when as many are added as are left: it costs little."""
        self._due = [entry for entry in self._due if not entry[2].done()]
        heapify(self._due)
        self._most = max(_LEAST_ENTRIES, 2 * len(self._due))

    def _end_due(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        until = loop.time() + STEP_SECONDS / 2  # a timer may come that much early, as its time is rounded
        while self._due and self._due[0][0] <= until:
            waiter = heappop(self._due)[2]
            if not waiter.done():
                waiter.set_result(None)
        if self._due:
            self._timer = loop.call_at(self._due[0][0], self._end_due, context=_NO_CONTEXT)


class Wakeable:
    """Something for which one asyncio task at a time waits.

    `asyncio.wait`, or an `asyncio.Event` with a timeout, would hold a KiB more for each that waits.
    """

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """End the wait, if there is one."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def woken(self, time_outs: TimeOuts, seconds: float) -> "asyncio.Future[None]":
        """Return what is done at the next `wake`, and in `seconds` at the latest. A coroutine would hold more."""
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        time_outs.set(waiter, seconds)
        return waiter
