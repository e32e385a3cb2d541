"""The lanes in which deliveries wait: one a subscription, each with its own limits and its own pace.

No I/O and no clock: `now` is monotonic seconds. A lane begins small and grows by one with each success, up to what
its subscription allows; it shrinks by halves with each failure, down to one at a time; and it pauses, ever longer
until a success, when its endpoint asks to slow down. So an endpoint that is dead or hangs holds little memory and
few connections, however many deliveries wait for it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")

DEFAULT_IN_FLIGHT = 64
FIRST_IN_FLIGHT = 4
"""How many may be in flight before the first success."""
WAITING_PER_SLOT = 16
"""How many may wait in memory for each that may be in flight; the rest waits in the table."""
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a subscription allows: attempts side by side, and attempts begun a second (None: no limit)."""

    in_flight: int = DEFAULT_IN_FLIGHT
    rate: float | None = None


class EndpointQueue(Generic[Item]):
    """One subscription's deliveries."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.waiting: deque[Item] = deque()
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
        """What the subscription allows."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        self._allowed = min(self._allowed, limits.in_flight)

    @property
    def capacity(self) -> int:
        """How many it may hold in memory now."""
        return self._allowed * (1 + WAITING_PER_SLOT)

    def is_full(self) -> bool:
        """Say whether it may take no more."""
        return len(self) >= self.capacity

    def is_idle(self, now: float) -> bool:
        """Say whether it holds nothing and remembers nothing worth keeping."""
        untroubled = self._allowed >= min(FIRST_IN_FLIGHT, self._limits.in_flight) and self._pause == _FIRST_PAUSE
        return not len(self) and untroubled and now >= max(self.paused_until, self._next_start)

    def ready_at(self, now: float) -> float | None:
        """Return when its next attempt may begin, `now` for at once; None if that depends on one that runs."""
        if not self.waiting or self.running >= self._allowed:
            return None
        return max(now, self.paused_until, self._next_start)

    def begin(self, now: float) -> Item:
        """Take the next one; it runs from now on. Only when `ready_at` is `now`."""
        if self._limits.rate is not None:
            self._next_start = max(now, self._next_start) + 1 / self._limits.rate
        self.running += 1
        return self.waiting.popleft()

    def succeeded(self) -> None:
        """One that ran was delivered."""
        self.running -= 1
        self._pause = _FIRST_PAUSE
        self._allowed = min(self._allowed + 1, self._limits.in_flight)

    def failed(self, now: float, *, slow_down: bool, retry_after: float = 0.0) -> list[Item]:
        """One that ran failed; return those that it may hold no longer, the last to come first to go."""
        self.running -= 1
        self._allowed = max(1, self._allowed // 2)
        if slow_down:
            self.paused_until = max(self.paused_until, now + max(self._pause, min(retry_after, _LONGEST_PAUSE)))
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return [self.waiting.pop() for _ in range(min(len(self) - self.capacity, len(self.waiting)))]

    def left(self) -> None:
        """One that ran was not sent after all."""
        self.running -= 1

    def put_back(self, item: Item) -> None:
        """One that was taken was not begun: it is the next again."""
        self.running -= 1
        self.waiting.appendleft(item)


class EndpointQueues(Generic[Item]):
    """All lanes. Those that have something ready take turns."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queues: dict[int, EndpointQueue[Item]] = {}
        self._held = 0

    def __iter__(self) -> Iterator[int]:
        return iter(self._queues)

    def __contains__(self, key: int) -> bool:
        return key in self._queues

    def __getitem__(self, key: int) -> EndpointQueue[Item]:
        return self._queues[key]

    def has_room(self, key: int) -> bool:
        """Say whether one more may be taken for this subscription."""
        queue = self._queues.get(key)
        return self._held < self._capacity and (queue is None or not queue.is_full())

    def closed(self, now: float) -> list[int]:
        """Return the subscriptions for which nothing is to be claimed now: their lanes are full, or they pause."""
        return [key for key, queue in self._queues.items() if queue.is_full() or queue.paused_until > now]

    def free(self) -> int:
        """Return how many more may be held in all."""
        return self._capacity - self._held

    def offer(self, key: int, item: Item) -> bool:
        """Let one wait in its lane; return whether the lane is new."""
        new = key not in self._queues
        self._queues.setdefault(key, EndpointQueue()).waiting.append(item)
        self._held += 1
        return new

    def take(self, now: float, most: int) -> list[Item]:
        """Return what may begin now, one of each lane in turn, at most `most`."""
        taken: list[Item] = []
        keys = deque(self._queues)
        while keys and len(taken) < most:
            key = keys.popleft()
            queue = self._queues[key]
            if queue.ready_at(now) != now:
                continue
            taken.append(queue.begin(now))
            keys.append(key)
            self._queues[key] = self._queues.pop(key)  # whoever had its turn is last in the next round
        return taken

    def next_ready_at(self, now: float) -> float | None:
        """Return the earliest moment after `now` at which a lane opens by itself; None if there is none."""
        moments = [at for queue in self._queues.values() if (at := queue.ready_at(now)) is not None and at > now]
        return min(moments, default=None)

    def succeeded(self, key: int) -> None:
        """One of this lane was delivered."""
        self._queues[key].succeeded()
        self._held -= 1

    def failed(self, key: int, now: float, *, slow_down: bool, retry_after: float = 0.0) -> list[Item]:
        """One of this lane failed; return those that the lane may hold no longer."""
        excess = self._queues[key].failed(now, slow_down=slow_down, retry_after=retry_after)
        self._held -= 1 + len(excess)
        return excess

    def left(self, key: int) -> None:
        """One of this lane was taken and not sent after all."""
        self._queues[key].left()
        self._held -= 1

    def put_back(self, key: int, item: Item) -> None:
        """One of this lane was taken and not begun: it is the next again."""
        self._queues[key].put_back(item)

    def forget_idle(self, now: float) -> None:
        """Forget the lanes that hold nothing and remember nothing."""
        for key in [key for key, queue in self._queues.items() if queue.is_idle(now)]:
            del self._queues[key]

    def clear(self) -> list[Item]:
        """Empty every lane; return what waited."""
        waiting = [item for queue in self._queues.values() for item in queue.waiting]
        for queue in self._queues.values():
            queue.waiting.clear()
        self._held -= len(waiting)
        return waiting
