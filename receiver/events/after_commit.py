"""What happens after a commit: long polls are woken, deliveries go to the dispatcher, events to the feed."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct, field

from receiver.events.pending_fan_outs import PendingFanOuts
from receiver.events.wakeable import LEAVER, STEP_SECONDS, TimeOuts, Wakeable
from receiver.storage.transaction import LeasedDelivery, NewEvent
from receiver.telemetry.metrics import long_polls_waiting

Row = Mapping[str, Any]

_REREAD_SECONDS = 5.0
"""A long poll reads the row again this often even when nothing woke it: another process may have changed it."""


class Dispatcher(Protocol):
    """Sends deliveries. All that `receiver.events` knows of `receiver.workers.dispatch`."""

    def has_room(self, subscription_id: int, organization_id: int) -> bool:
        """Return whether memory has room for one more delivery to this subscription of this organization."""
        ...

    def hand_over(self, deliveries: Sequence[LeasedDelivery]) -> None:
        """Take deliveries that were written as leased to this process."""
        ...

    def wake(self) -> None:
        """Claim deliveries soon: the table has one that is due and that no process has leased."""
        ...


class Publisher(Protocol):
    """Shows events to their followers: the feed itself, or on PostgreSQL the log that publishes to it."""

    def publish(self, events: Sequence[tuple[int, NewEvent]]) -> None:
        """Take events with their sequence numbers, after their commit."""
        ...


class AfterCommit(Struct, frozen=True):
    """What to notify after a commit: long polls, the dispatcher, the worker for due tasks, and the stream's feed."""

    waiting: "Waiting"
    dispatcher: Dispatcher
    due: "WakeTimer"
    publisher: Publisher
    lease_seconds: float
    """The lease of a delivery that goes to this process's dispatcher without a claim, in seconds."""
    pending_fan_outs: PendingFanOuts = field(default_factory=PendingFanOuts)
    """Deliveries that are written later."""


class _Waiter(Protocol):
    """What is set when a task or run has changed."""

    def set(self) -> None:
        """Note the change."""
        ...


class Waiting:
    """The long polls of this process, by the id of the task or run that each waits for."""

    def __init__(self) -> None:
        self.closed = False
        self.watched = asyncio.Event()
        """Set while at least one long poll waits."""
        self._waiters: dict[str, set[_Waiter]] = defaultdict(set)
        self.time_outs = TimeOuts()
        """What ends the waits of those that nothing wakes."""

    def watch(self, uid: str) -> "Watch":
        """Return a context manager within which no change of this task or run is missed."""
        return Watch(self, uid)

    def watch_several(self, uids: AbstractSet[str]) -> "SeveralWatched":
        """Return a context manager within which no change of these tasks or runs is missed."""
        return SeveralWatched(self, uids)

    async def read_until(
        self, uid: str, seconds: float, read: Callable[[], Awaitable[Row]], is_over: Callable[[Row], bool]
    ) -> Row:
        """Return what `read` returns as soon as `is_over` accepts it, after `seconds`, or when the service stops."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        with self.watch(uid) as watch:
            while True:
                row = await read()
                left = end - loop.time()
                if is_over(row) or left < STEP_SECONDS or self.closed:
                    return row
                del row  # it is read again, and thousands may wait
                await watch.changed(min(left, _REREAD_SECONDS))

    def wake(self, uid: str) -> None:
        """Wake the long polls that wait for this task or run."""
        for waiter in self._waiters.get(uid, ()):
            waiter.set()

    def wake_all(self) -> None:
        """Wake every long poll: any task or run may have changed."""
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.set()

    def close(self) -> None:
        """Wake every long poll so that it returns what it has read: the service stops."""
        self.closed = True
        self.wake_all()

    def _add(self, uid: str, waiter: _Waiter) -> None:
        self._waiters[uid].add(waiter)
        self.watched.set()

    def _remove(self, uid: str, waiter: _Waiter) -> None:
        waiters = self._waiters[uid]
        waiters.discard(waiter)
        if not waiters:
            del self._waiters[uid]
        if not self._waiters:
            self.watched.clear()


class _Wait:
    """Within it a long poll waits: it is counted, and ends when its client is gone. A generator would hold more."""

    __slots__ = ("_leaver",)

    def __enter__(self) -> None:
        long_polls_waiting.inc()
        self._leaver = LEAVER.get()
        if self._leaver is not None:
            self._leaver.begin_wait()

    def __exit__(self, *_: object) -> None:
        long_polls_waiting.dec()
        if self._leaver is not None:
            self._leaver.end_wait()


class Watch(Wakeable):
    """One long poll. Enter it before reading the row: a change between reading and waiting is then not missed."""

    __slots__ = ("_has_changed", "_uid", "_waiting")

    def __init__(self, waiting: Waiting, uid: str) -> None:
        super().__init__()
        self._waiting = waiting
        self._uid = uid
        self._has_changed = False

    def __enter__(self) -> "Watch":
        self._waiting._add(self._uid, self)
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting._remove(self._uid, self)

    def set(self) -> None:
        """Note that the task or run has changed, and end the wait."""
        self._has_changed = True
        self.wake()

    async def changed(self, seconds: float) -> bool:
        """Wait for a change, `seconds` at most; return whether there was one."""
        if not self._has_changed:
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            self._waiting.time_outs.set(waiter, max(seconds, 0))
            with _Wait():
                try:
                    await waiter
                finally:
                    self._waiter = None
        has_changed, self._has_changed = self._has_changed, False
        return has_changed


class SeveralWatched:
    """One long poll for several tasks or runs. Enter it before reading them, as a `Watch`."""

    def __init__(self, waiting: Waiting, uids: AbstractSet[str]) -> None:
        self.uids = uids
        self._waiting = waiting
        self._event = asyncio.Event()
        self._changed: set[str] = set()
        self._waiters = {uid: _OneOfSeveral(uid, self._changed, self._event) for uid in uids}

    def __enter__(self) -> "SeveralWatched":
        for uid, waiter in self._waiters.items():
            self._waiting._add(uid, waiter)
        return self

    def __exit__(self, *_: object) -> None:
        for uid, waiter in self._waiters.items():
            self._waiting._remove(uid, waiter)

    async def changed(self, seconds: float) -> AbstractSet[str]:
        """Wait for a change, `seconds` at most; return what to read again.

        That is all of them when nothing has woken it for a while: another process may have changed one.
        """
        with _Wait():
            try:
                async with asyncio.timeout(max(min(seconds, _REREAD_SECONDS), 0)):
                    await self._event.wait()
            except TimeoutError:
                return self.uids
        found = set(self._changed)
        self._changed.clear()
        self._event.clear()
        return found


class _OneOfSeveral:
    """Notes which of several tasks or runs has changed."""

    __slots__ = ("_changed", "_event", "_uid")

    def __init__(self, uid: str, changed: set[str], event: asyncio.Event) -> None:
        self._uid = uid
        self._changed = changed
        self._event = event

    def set(self) -> None:
        self._changed.add(self._uid)
        self._event.set()


class WakeTimer:
    """Wakes one worker at the earliest of the times that were set."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._at: datetime | None = None

    def set(self, at: datetime) -> None:
        """Wake the worker no later than `at`."""
        if self._at is None or at < self._at:
            self._at = at
            self._event.set()

    async def wait(self, now: datetime, longest: float) -> None:
        """Return at the earliest time that was set, or after `longest` seconds; `now` is the current time."""
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
