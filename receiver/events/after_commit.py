"""What happens after a commit: long polls are woken, deliveries go to the dispatcher, events to the feed."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
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
    """What is told when a task or run has changed."""

    def set(self, uid: str) -> None:
        """Note the change of this task or run."""
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

    def watch_several(self, uids: Collection[str]) -> "SeveralWatched":
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
            waiter.set(uid)

    def wake_all(self) -> None:
        """Wake every long poll: any task or run may have changed."""
        for uid, waiters in self._waiters.items():
            for waiter in waiters:
                waiter.set(uid)

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

    def set(self, _uid: str) -> None:
        """Note that the task or run has changed, and end the wait."""
        self._has_changed = True
        self.wake()

    async def changed(self, seconds: float) -> bool:
        """Wait for a change, `seconds` at most; return whether there was one."""
        if not self._has_changed:
            with _Wait():
                await self.woken(self._waiting.time_outs, max(seconds, 0))
        has_changed, self._has_changed = self._has_changed, False
        return has_changed


class SeveralWatched(Wakeable):
    """One long poll for several tasks or runs. Enter it before reading them, as a `Watch`."""

    __slots__ = ("_changed", "_waiting", "uids")

    def __init__(self, waiting: Waiting, uids: Collection[str]) -> None:
        super().__init__()
        self._waiting = waiting
        self.uids = uids
        self._changed: set[str] | None = None
        """What has changed since it was asked last; while that is nothing, no set is held."""

    def __enter__(self) -> "SeveralWatched":
        for uid in self.uids:
            self._waiting._add(uid, self)
        return self

    def __exit__(self, *_: object) -> None:
        for uid in self.uids:
            self._waiting._remove(uid, self)

    def set(self, uid: str) -> None:
        """Note that this one of them has changed, and end the wait."""
        if self._changed is None:
            self._changed = set()
        self._changed.add(uid)
        self.wake()

    async def changed(self, seconds: float) -> Collection[str]:
        """Wait for a change, `seconds` at most; return what to read again.

        That is `uids` when nothing has woken it for a while: another process may have changed one.
        """
        if self._changed is None:
            with _Wait():
                await self.woken(self._waiting.time_outs, max(min(seconds, _REREAD_SECONDS), 0))
        changed, self._changed = self._changed, None
        return self.uids if changed is None else changed


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
