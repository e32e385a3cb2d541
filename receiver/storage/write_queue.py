"""The writes that wait for a commit: organizations take turns, and inbound webhooks keep room that only they may use.

Why turns: a batch is taken from what waits, and one client that creates thousands of tasks a second would put as many
writes before another's first one. Each organization has a queue here, and a batch takes one write of each in turn; the
writes that belong to none (outcomes of attempts, claims, webhooks of providers) have a queue and a turn of their own.

Why rests: a write may stand for many rows, such as a thousand tasks that are created together, and cannot be divided.
After a batch with such writes their organization rests, so that most batches are short. It does not while all writes
of this process have been of one organization.

Room is counted in weight, of bounded writes alone: others are bounded by those who make them. An organization may use
as much of it as is free (`receiver.domain.shared_pool` has the rule). Times are of the loop's clock.
"""

import heapq
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

HEAVY = 50
"""A write of this weight or more is heavy."""
REST = 3
"""After a batch with heavy writes of an organization, it rests for this many times the time that they took."""
_RESERVED = 4
"""One of this many parts of the capacity is kept for essential writes."""
_TURNS_OF_NONE = 8
"""How many writes that belong to no organization are taken in one turn: they are of all organizations."""


class WaitingWrite(Protocol):
    """What has to be known of a write here."""

    weight: int
    bounded: bool
    essential: bool
    organization: int | None


Queued = TypeVar("Queued", bound=WaitingWrite)


class WriteQueue(Generic[Queued]):
    """The writes that wait, in the order of turns; at most `capacity` in weight of bounded ones."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._plain_capacity = capacity - capacity // _RESERVED
        self._weight = 0
        self._plain_weight = 0
        """The part of it that is not essential."""
        self._weights: dict[int, int] = {}
        self._waiting: OrderedDict[int | None, deque[Queued]] = OrderedDict()
        self._resting: dict[int, deque[Queued]] = {}
        """The queues of organizations that rest after heavy writes."""
        self._rests: list[tuple[float, int]] = []
        self._count = 0
        self._only: int | None = None
        """The organization of all writes until now, unless there were others."""
        self._has_several = False
        self._is_hurried = False

    def __len__(self) -> int:
        """Return how many writes may be taken now."""
        return self._count

    def __bool__(self) -> bool:
        """Return whether any write waits, also one that may not be taken now."""
        return bool(self._count or self._resting)

    def is_full_for(self, weight: int, organization: int | None, *, essential: bool) -> bool:
        """Return whether there is no room for a bounded write. One is admitted where nothing of its kind waits."""
        free, waiting = self._capacity - self._weight, self._weight
        if not essential:
            free, waiting = min(free, self._plain_capacity - self._plain_weight), self._plain_weight
        if not waiting:
            return False
        own = 0 if organization is None else self._weights.get(organization, 0)
        return weight > free or (own > 0 and own + weight > free)

    def add(self, write: Queued) -> None:
        """Let a write, which is counted already, wait at the end of its organization's queue."""
        organization = write.organization
        if organization is not None:
            self._has_several = self._has_several or self._only not in (None, organization)
            self._only = organization
        if organization is not None and organization in self._resting:
            self._resting[organization].append(write)
            return
        self._count += 1
        if organization in self._waiting:
            self._waiting[organization].append(write)
        else:
            self._waiting[organization] = deque((write,))

    def count(self, write: Queued, times: int) -> None:
        """Count the weight of a write that waits (1), here or set apart, or does not any more (-1)."""
        if not write.bounded:
            return
        weight = times * write.weight
        self._weight += weight
        if not write.essential:
            self._plain_weight += weight
        if write.organization is not None:
            own = self._weights.get(write.organization, 0) + weight
            if own:
                self._weights[write.organization] = own
            else:
                self._weights.pop(write.organization, None)

    def next_at(self) -> float | None:
        """Return when writes may be taken that may not be now, None if there are none."""
        return self._rests[0][0] if self._rests else None

    def wake(self, now: float) -> None:
        """Let the writes of organizations be taken whose rest is over."""
        while self._rests and (self._rests[0][0] <= now or self._is_hurried):
            _, organization = heapq.heappop(self._rests)
            queue = self._resting.pop(organization)
            if queue:
                self._waiting[organization] = queue
                self._count += len(queue)

    def hurry(self) -> None:
        """Let nothing rest any more: the writer closes."""
        self._is_hurried = True

    def take(self, most: int) -> list[Queued]:
        """Remove and return a batch: one write of each organization in turn, up to the weight `most`; at least one.

        Call it only when the length is not 0.
        """
        batch: list[Queued] = []
        weight = 0
        while self._waiting:
            organization, queue = next(iter(self._waiting.items()))
            turn = self._turn_of(organization, queue, most - weight if batch else None)
            if not turn:
                break
            batch += turn
            weight += sum(write.weight for write in turn)
            self._turn_over(organization, queue)
        self._count -= len(batch)
        for write in batch:
            self.count(write, -1)
        return batch

    def _turn_of(self, organization: int | None, queue: deque[Queued], room: int | None) -> list[Queued]:
        """Remove and return the writes of one turn, up to the weight `room`; None: the first one in any case."""
        turn: list[Queued] = []
        left = queue[0].weight if room is None else room
        while queue and queue[0].weight <= left and len(turn) < (_TURNS_OF_NONE if organization is None else 1):
            left -= queue[0].weight
            turn.append(queue.popleft())
        return turn

    def rest(self, batch: Sequence[Queued], seconds: float, now: float) -> None:
        """Let the organizations rest whose heavy writes are in a batch, which took `seconds` to be stored."""
        if not self._has_several:
            return
        heavy = Counter[int]()
        for write in batch:
            if write.weight >= HEAVY and write.organization is not None:
                heavy[write.organization] += write.weight
        total = sum(write.weight for write in batch)
        for organization, weight in heavy.items():
            if organization not in self._resting:
                queue = self._waiting.pop(organization, deque())
                self._count -= len(queue)
                self._resting[organization] = queue
                heapq.heappush(self._rests, (now + REST * seconds * weight / total, organization))

    def _turn_over(self, organization: int | None, queue: deque[Queued]) -> None:
        """Put the queue whose turn is over where it waits for the next one."""
        if queue:
            self._waiting.move_to_end(organization)
        else:
            del self._waiting[organization]
