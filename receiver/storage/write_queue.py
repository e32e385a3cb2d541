"""The writes that wait for a commit: organizations take turns, and inbound webhooks keep room that only they may use.

Why turns: a batch is taken from what waits, and one client that creates thousands of tasks a second would put as many
writes before another's first one. Each organization has a queue here, and a batch takes one write of each in turn; the
writes that belong to none (outcomes of attempts, claims, webhooks of providers) have a queue and a turn of their own.

Why rests: a write may stand for many rows or bytes, such as a thousand tasks that are created together, and cannot be
divided. Such a heavy write has a batch of its own, after which light ones have a batch, and its organization rests, so
that others wait for one heavy write at most, and seldom. None of that is so while all writes of this process have been
of one organization.

Room is counted in items, of bounded writes alone: others are bounded by those who make them. An organization may use
as much of it as is free (`receiver.domain.shared_pool` has the rule). Times are of the loop's clock.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

HEAVY = 50
"""A write of this weight or more is heavy."""
_BYTES_OF_ITEM = 8192
"""With so large a document an item takes twice the time of one with a small one."""
REST = 3
"""After a heavy write its organization rests for this many times the time that it took."""
_RESERVED = 4
"""One of this many parts of the capacity is kept for essential writes."""
_TURNS_OF_NONE = 8
"""How many writes that belong to no organization are taken in one turn: they are of all organizations."""


class WaitingWrite(Protocol):
    """What has to be known of a write here: `items` is how many it stands for, `weight` about how long it takes."""

    items: int
    weight: int
    bounded: bool
    essential: bool
    organization: int | None


Queued = TypeVar("Queued", bound=WaitingWrite)


def weight_of(items: int, size: int) -> int:
    """Return the weight of a write that stands for this many items, whose documents have about `size` bytes in all."""
    return items + size // _BYTES_OF_ITEM


class WriteQueue(Generic[Queued]):
    """The writes that wait, in the order of turns; at most `capacity` items of bounded ones."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._plain_capacity = capacity - capacity // _RESERVED
        self._items = 0
        self._plain_items = 0
        """The part of them that is not essential."""
        self._items_of: dict[int, int] = {}
        self._waiting: OrderedDict[int | None, deque[Queued]] = OrderedDict()
        self._resting: dict[int, deque[Queued]] = {}
        """The queues of organizations that rest after heavy writes."""
        self._rests: list[tuple[float, int]] = []
        self._count = 0
        self._only: int | None = None
        """The organization of all writes until now, unless there were others."""
        self._has_several = False
        self._was_heavy = False
        """Whether the last batch was a heavy write."""
        self._is_hurried = False

    def __len__(self) -> int:
        """Return how many writes may be taken now."""
        return self._count

    def __bool__(self) -> bool:
        """Return whether any write waits, also one that may not be taken now."""
        return bool(self._count or self._resting)

    def is_full_for(self, write: Queued) -> bool:
        """Return whether there is no room for a bounded write. One is admitted where nothing of its kind waits."""
        free, waiting = self._capacity - self._items, self._items
        if not write.essential:
            free, waiting = min(free, self._plain_capacity - self._plain_items), self._plain_items
        if not waiting:
            return False
        own = 0 if write.organization is None else self._items_of.get(write.organization, 0)
        return write.items > free or (own > 0 and own + write.items > free)

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
        """Count the items of a write that waits (1), here or set apart, or does not any more (-1)."""
        if not write.bounded:
            return
        items = times * write.items
        self._items += items
        if not write.essential:
            self._plain_items += items
        if write.organization is not None:
            own = self._items_of.get(write.organization, 0) + items
            if own:
                self._items_of[write.organization] = own
            else:
                self._items_of.pop(write.organization, None)

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

        Where several organizations have written, a heavy write is a batch of its own, and light ones have the next one.
        Call it only when the length is not 0.
        """
        first = next(iter(self._waiting.values()))
        is_turn_of_heavy = self._is_apart(first[0]) and not self._was_heavy
        batch = [] if is_turn_of_heavy else self._take_turns(most)
        if not batch:  # it is the turn of a heavy write, or all that wait are heavy
            batch = [self._take_first()]
        self._was_heavy = batch[0].weight >= HEAVY
        self._count -= len(batch)
        for write in batch:
            self.count(write, -1)
        return batch

    def _take_first(self) -> Queued:
        organization, queue = next(iter(self._waiting.items()))
        write = queue.popleft()
        self._turn_over(organization, queue)
        return write

    def _take_turns(self, most: int) -> list[Queued]:
        """Remove and return writes in turn, up to the weight `most`, at least one; none that are to be apart."""
        batch: list[Queued] = []
        weight = 0
        passed: list[tuple[int | None, deque[Queued]]] = []
        while self._waiting:
            organization, queue = next(iter(self._waiting.items()))
            if self._is_apart(queue[0]):
                passed.append(self._waiting.popitem(last=False))
                continue
            turn = self._turn_of(organization, queue, most - weight if batch else None)
            if not turn:
                break
            batch += turn
            weight += sum(write.weight for write in turn)
            self._turn_over(organization, queue)
        for organization, queue in reversed(passed):  # they are the first ones the next time
            self._waiting[organization] = queue
            self._waiting.move_to_end(organization, last=False)
        return batch

    def _is_apart(self, write: Queued) -> bool:
        return self._has_several and write.weight >= HEAVY

    def _turn_of(self, organization: int | None, queue: deque[Queued], room: int | None) -> list[Queued]:
        """Remove and return the writes of one turn, up to the weight `room`; None: the first one in any case."""
        turn: list[Queued] = []
        left = queue[0].weight if room is None else room
        most = _TURNS_OF_NONE if organization is None else 1
        while queue and queue[0].weight <= left and len(turn) < most and not (turn and self._is_apart(queue[0])):
            left -= queue[0].weight
            turn.append(queue.popleft())
        return turn

    def rest(self, batch: Sequence[Queued], seconds: float, now: float) -> None:
        """Let the organization rest whose heavy write was a batch, which took `seconds` to be stored."""
        organization = batch[0].organization
        if organization is None or not self._is_apart(batch[0]) or organization in self._resting:
            return
        queue = self._waiting.pop(organization, deque())
        self._count -= len(queue)
        self._resting[organization] = queue
        heapq.heappush(self._rests, (now + REST * seconds, organization))

    def _turn_over(self, organization: int | None, queue: deque[Queued]) -> None:
        """Put the queue whose turn is over where it waits for the next one."""
        if queue:
            self._waiting.move_to_end(organization)
        else:
            del self._waiting[organization]
