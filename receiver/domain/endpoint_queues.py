"""The queues in which deliveries wait: one for each subscription, each with its own limits and concurrency.

Why a queue grows and shrinks: all endpoints share the connections and the memory of one process, and no setting tells
in advance which of them works. The number of attempts that one endpoint may have in flight therefore adapts, like a TCP
congestion window. It starts at `FIRST_IN_FLIGHT`, grows by one with each success up to the limit of the subscription,
and is halved with each failure, down to one at a time. The number of deliveries that may wait in memory is proportional
to it; the others wait in the database table. When an endpoint asks to slow down, its queue also pauses, twice as long
each time until a success. So an endpoint that is down or does not answer holds few connections and little memory,
however many deliveries wait for it, and it delays no other endpoint.

`now` is in seconds of a monotonic clock.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

DEFAULT_IN_FLIGHT = 64
FIRST_IN_FLIGHT = 4
"""How many attempts may be in flight before the first success."""
WAITING_PER_SLOT = 16
"""How many deliveries may wait in memory for each attempt that may be in flight; the others wait in the table."""
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a subscription allows: concurrent attempts, and attempts started per second (None: no limit)."""

    in_flight: int = DEFAULT_IN_FLIGHT
    rate: float | None = None


class EndpointQueue(Generic[T]):
    """The deliveries of one subscription: those that wait in memory, and the number of those in flight."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.waiting: deque[T] = deque()
        self.running = 0
        self.paused_until = 0.0
        self._limits = limits or Limits()
        self._allowed = min(FIRST_IN_FLIGHT, self._limits.in_flight)
        self._pause = _FIRST_PAUSE
        self._next_start = 0.0

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
        is_healthy = self._allowed >= min(FIRST_IN_FLIGHT, self._limits.in_flight) and self._pause == _FIRST_PAUSE
        return not len(self) and is_healthy and now >= max(self.paused_until, self._next_start)

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
        self._pause = _FIRST_PAUSE
        self._allowed = min(self._allowed + 1, self._limits.in_flight)

    def failed(self, now: float, *, slow_down: bool, retry_after: float = 0.0) -> list[T]:
        """Record that a delivery in flight failed; return the waiting ones above the lower capacity, newest first.

        `slow_down` pauses the queue, for at least `retry_after` seconds (of which at most `_LONGEST_PAUSE` count).
        """
        self.running -= 1
        self._allowed = max(1, self._allowed // 2)
        if slow_down:
            self.paused_until = max(self.paused_until, now + max(self._pause, min(retry_after, _LONGEST_PAUSE)))
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return [self.waiting.pop() for _ in range(min(len(self) - self.capacity, len(self.waiting)))]

    def abandoned(self) -> None:
        """Record that a delivery in flight was not sent, and is no longer held here."""
        self.running -= 1

    def put_back(self, item: T) -> None:
        """Return a delivery in flight, of which no attempt was started, to the front of the queue."""
        self.running -= 1
        self.waiting.appendleft(item)


class EndpointQueues(Generic[T]):
    """The queues of all subscriptions, by the subscription's row key. Those with a delivery to start now take turns.

    `capacity` is how many deliveries all of them may hold together.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queues: dict[int, EndpointQueue[T]] = {}
        self._held = 0

    def __iter__(self) -> Iterator[int]:
        return iter(self._queues)

    def __contains__(self, key: int) -> bool:
        return key in self._queues

    def __getitem__(self, key: int) -> EndpointQueue[T]:
        return self._queues[key]

    def has_capacity(self, key: int) -> bool:
        """Return whether one more delivery may be added for this subscription."""
        queue = self._queues.get(key)
        return self._held < self._capacity and (queue is None or not queue.is_full())

    def blocked(self, now: float) -> list[int]:
        """Return the subscriptions whose deliveries cannot be claimed now: their queues are full or paused."""
        return [key for key, queue in self._queues.items() if queue.is_full() or queue.paused_until > now]

    def free_capacity(self) -> int:
        """Return how many more deliveries may be held in all."""
        return self._capacity - self._held

    def add(self, key: int, item: T) -> bool:
        """Append a delivery to its queue; return whether the queue was created for it."""
        is_new = key not in self._queues
        self._queues.setdefault(key, EndpointQueue()).waiting.append(item)
        self._held += 1
        return is_new

    def take(self, now: float, most: int) -> list[T]:
        """Remove and return the deliveries to start now: one of each queue in turn, at most `most`."""
        taken: list[T] = []
        keys = deque(self._queues)
        while keys and len(taken) < most:
            key = keys.popleft()
            queue = self._queues[key]
            if queue.ready_at(now) != now:
                continue
            taken.append(queue.begin(now))
            keys.append(key)
            self._queues[key] = self._queues.pop(key)  # moved to the end: the next call begins with the others
        return taken

    def next_ready_at(self, now: float) -> float | None:
        """Return the earliest time after `now` at which a pause or rate limit ends for a waiting delivery, or None."""
        moments = [at for queue in self._queues.values() if (at := queue.ready_at(now)) is not None and at > now]
        return min(moments, default=None)

    def succeeded(self, key: int) -> None:
        """Record that a delivery in flight of this queue was delivered."""
        self._queues[key].succeeded()
        self._held -= 1

    def failed(self, key: int, now: float, *, slow_down: bool, retry_after: float = 0.0) -> list[T]:
        """Record that a delivery in flight failed; return the waiting ones that the queue may no longer hold."""
        excess = self._queues[key].failed(now, slow_down=slow_down, retry_after=retry_after)
        self._held -= 1 + len(excess)
        return excess

    def abandoned(self, key: int) -> None:
        """Record that a delivery in flight of this queue was not sent, and is no longer held here."""
        self._queues[key].abandoned()
        self._held -= 1

    def put_back(self, key: int, item: T) -> None:
        """Return a delivery in flight, of which no attempt was started, to the front of its queue."""
        self._queues[key].put_back(item)

    def forget_idle(self, now: float) -> None:
        """Remove the queues that are idle."""
        for key in [key for key, queue in self._queues.items() if queue.is_idle(now)]:
            del self._queues[key]

    def clear(self) -> list[T]:
        """Remove and return all waiting deliveries. Those in flight stay."""
        waiting = [item for queue in self._queues.values() for item in queue.waiting]
        for queue in self._queues.values():
            queue.waiting.clear()
        self._held -= len(waiting)
        return waiting
