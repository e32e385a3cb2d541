"""The queue of one subscription: its limits, its concurrency, and how its endpoint has answered.

Why a queue grows and shrinks: all endpoints share the connections and the memory of one process, and no setting tells
in advance which of them works. The number of attempts that one endpoint may have in flight therefore adapts, like a TCP
congestion window. It starts at `FIRST_IN_FLIGHT`, grows by one with each success up to the limit of the subscription,
and is halved with each failure, down to one at a time. The number of deliveries that may wait in memory is proportional
to it; the others wait in the database table. When an endpoint asks to slow down, its queue also pauses, twice as long
each time until a success. So an endpoint that is down or does not answer holds few connections and little memory,
however many deliveries wait for it.

`now` is in seconds of a monotonic clock.
"""

import math
from collections import OrderedDict, deque
from enum import IntEnum
from typing import Generic, TypeVar

from msgspec import Struct

from receiver.domain.shared_pool import HostShare

T = TypeVar("T")

DEFAULT_IN_FLIGHT = 64
FIRST_IN_FLIGHT = 4
"""How many attempts may be in flight before the first success."""
WAITING_PER_SLOT = 16
"""How many deliveries may wait in memory for each attempt that may be in flight; the others wait in the table."""
REMEMBERED_SECONDS = 300.0
"""How long a queue without deliveries is kept after a failure: its endpoint is known to fail."""
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


class Limits(Struct, frozen=True):
    """What a subscription allows: concurrent attempts, and attempts started per second (None: no limit)."""

    in_flight: int = DEFAULT_IN_FLIGHT
    rate: float | None = None


class Standing(IntEnum):
    """What is known of an endpoint: its last attempt succeeded, none has ended yet, or its last attempt failed."""

    WORKS = 0
    UNTRIED = 1
    FAILS = 2


class EndpointQueue(Generic[T]):
    """The deliveries of one subscription: those that wait in memory, and the number of those in flight."""

    def __init__(self, organization: int) -> None:
        self.organization = organization
        self.waiting: deque[T] = deque()
        self.running = 0
        self.paused_until = 0.0
        self.standing = Standing.UNTRIED
        self.host: HostShare | None = None
        """The share of its organization in the host that it is sent to; None until that is known."""
        self.place: OrderedDict[int, None] | None = None
        """Where its key waits for a turn: among the endpoints of its organization, or for its host."""
        self.timer_at = math.inf
        self._limits = Limits()
        self._allowed = min(FIRST_IN_FLIGHT, self._limits.in_flight)
        self._pause = _FIRST_PAUSE
        self._next_start = 0.0
        self._forget_at = 0.0

    def __len__(self) -> int:
        return len(self.waiting) + self.running

    @property
    def limits(self) -> Limits:
        """The limits of the subscription. Setting lower ones takes effect with the next attempt."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        self._allowed = min(self._allowed, limits.in_flight)

    @property
    def capacity(self) -> int:
        """How many deliveries may be held in memory now, waiting and in flight."""
        return self._allowed * (1 + WAITING_PER_SLOT)

    def is_full(self) -> bool:
        """Return whether no further delivery may be added."""
        return len(self) >= self.capacity

    def is_idle(self, now: float) -> bool:
        """Return whether the queue is empty and has nothing to remember, so that it can be removed."""
        return not len(self) and now >= max(self.paused_until, self._next_start, self._forget_at)

    def ready_at(self, now: float) -> float | None:
        """Return when the next attempt may start (`now`: at once); None if nothing waits or one in flight must end."""
        if not self.waiting or self.running >= self._allowed:
            return None
        return max(now, self.paused_until, self._next_start)

    def begin(self, now: float) -> T:
        """Remove and return the next delivery, and count it as in flight. Call it only when `ready_at` is `now`."""
        if self._limits.rate is not None:
            self._next_start = max(now, self._next_start) + 1 / self._limits.rate
        self.running += 1
        return self.waiting.popleft()

    def succeeded(self) -> None:
        """Record that a delivery in flight was delivered."""
        self.running -= 1
        self.standing = Standing.WORKS
        self._pause = _FIRST_PAUSE
        self._forget_at = 0.0
        self._allowed = min(self._allowed + 1, self._limits.in_flight)

    def failed(self, now: float, *, slow_down: bool, retry_after: float = 0.0) -> list[T]:
        """Record that a delivery in flight failed; return the waiting ones above the lower capacity, newest first.

        `slow_down` pauses the queue, for at least `retry_after` seconds (of which at most `_LONGEST_PAUSE` count).
        """
        self.running -= 1
        self.standing = Standing.FAILS
        self._forget_at = now + REMEMBERED_SECONDS
        self._allowed = max(1, self._allowed // 2)
        if slow_down:
            self.paused_until = max(self.paused_until, now + max(self._pause, min(retry_after, _LONGEST_PAUSE)))
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return [self.waiting.pop() for _ in range(min(len(self) - self.capacity, len(self.waiting)))]

    def unsent(self) -> None:
        """Record that a delivery in flight was not sent. It takes nothing of the rate: another may start instead."""
        self.running -= 1
        if self._limits.rate is not None:
            self._next_start -= 1 / self._limits.rate
