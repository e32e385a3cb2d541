"""After the commit: who waits for a task is woken, and deliveries go to whoever sends them."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from receiver.storage.transaction import LeasedDelivery


class Dispatcher(Protocol):
    """Sends deliveries. `tracking` knows no more of it than this."""

    def has_room(self, subscription_id: int) -> bool:
        """Say whether one more delivery for this subscription can be taken in memory now."""
        ...

    def hand_over(self, deliveries: Sequence[LeasedDelivery]) -> None:
        """Take deliveries that were written leased to this process."""
        ...

    def wake(self) -> None:
        """There is a delivery in the table that nobody holds."""
        ...


class Waiting:
    """Who waits for news of a task, by the task's outer id."""

    def __init__(self) -> None:
        self.closed = False
        self.watched = asyncio.Event()
        """Set while anybody waits."""
        self._waiters: dict[str, set[asyncio.Event]] = defaultdict(set)

    def watch(self, uid: str) -> "Watch":
        """Return a context in which no news of the task is missed."""
        return Watch(self, uid)

    def wake(self, uid: str) -> None:
        """Wake all who wait for this task."""
        for waiter in self._waiters.get(uid, ()):
            waiter.set()

    def wake_all(self) -> None:
        """Wake everybody: there may be news of any task."""
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.set()

    def close(self) -> None:
        """The service stops: wake all, so that they answer with what they know."""
        self.closed = True
        self.wake_all()

    def _add(self, uid: str, waiter: asyncio.Event) -> None:
        self._waiters[uid].add(waiter)
        self.watched.set()

    def _remove(self, uid: str, waiter: asyncio.Event) -> None:
        waiters = self._waiters[uid]
        waiters.discard(waiter)
        if not waiters:
            del self._waiters[uid]
        if not self._waiters:
            self.watched.clear()


class Watch:
    """One who waits. Enter it before reading the row, so that news between the two is not missed."""

    def __init__(self, waiting: Waiting, uid: str) -> None:
        self._waiting = waiting
        self._uid = uid
        self._event = asyncio.Event()

    def __enter__(self) -> "Watch":
        self._waiting._add(self._uid, self._event)
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting._remove(self._uid, self._event)

    async def news(self, seconds: float) -> bool:
        """Wait for news, `seconds` at most; say whether there was any."""
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class WakeTimer:
    """Wakes a worker at the earliest moment that anybody asked for."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._at: datetime | None = None

    def set(self, at: datetime) -> None:
        """Ask for the worker to look no later than `at`."""
        if self._at is None or at < self._at:
            self._at = at
            self._event.set()

    async def wait(self, now: datetime, longest: float) -> None:
        """Return when it is time, or after `longest` seconds; `now` is the present moment."""
        loop = asyncio.get_running_loop()
        end = loop.time() + longest
        started = loop.time()
        while True:
            self._event.clear()
            until = end
            if self._at is not None:
                until = min(end, started + max((self._at - now).total_seconds(), 0))
            try:
                async with asyncio.timeout(max(until - loop.time(), 0)):
                    await self._event.wait()
            except TimeoutError:
                self._at = None
                return
