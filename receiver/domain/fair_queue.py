"""A queue that serves its keys in turn, so that a key with many items delays the others by one item each round.

Why not first come, first served: the calls to one provider share a rate limit. A client that submits a thousand tasks
at once would then put a thousand calls in front of another client's single one. Here each key has its own queue, and
the keys are served round-robin: with k keys waiting, an item at the head of its queue is served after at most k - 1
items of other keys. The dictionary of queues is kept in the order of the turns. A key whose turn is over goes to the
end, and so does a key that had nothing waiting: otherwise a client that sends one call after the other could overtake
those that wait.
"""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items in one queue for each key: the keys take turns, and within a key it is first in, first out.

    A key that is new, or was empty, comes last. So while an item is at the head of its queue, no other key is served
    more than once before it.
    """

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[T]] = {}  # in the order of their turns; never an empty one
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: Hashable, item: T) -> None:
        """Append an item to the queue of `key`."""
        self._queues.setdefault(key, deque()).append(item)
        self._count += 1

    def take(self) -> T:
        """Remove and return the item whose turn it is. Raises `StopIteration` when the queue is empty."""
        key = next(iter(self._queues))
        items = self._queues.pop(key)
        item = items.popleft()
        if items:
            self._queues[key] = items
        self._count -= 1
        return item

    def discard(self, key: Hashable, item: T) -> None:
        """Remove an item that may still wait; does nothing if it does not."""
        items = self._queues.get(key, deque())
        if item in items:
            items.remove(item)
            self._count -= 1
            if not items:
                del self._queues[key]
