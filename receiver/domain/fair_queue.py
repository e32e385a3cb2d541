"""Taking turns: whoever waits, waits in a lane, and the lanes are served one after the other. Pure."""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items that wait, each in its lane: one of each lane in turn, the first that came in each.

    A lane that is new, or was empty, comes last. So between an item's coming to the head of its lane and its turn,
    no other lane is served more than once.
    """

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[Item]] = {}  # in the order of their turns
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: Hashable, item: Item) -> None:
        """Have an item wait, behind those of its lane."""
        self._queues.setdefault(key, deque()).append(item)
        self._count += 1

    def take(self) -> Item:
        """Remove the item whose turn it is, and return it."""
        key = next(iter(self._queues))
        items = self._queues.pop(key)
        item = items.popleft()
        if items:
            self._queues[key] = items
        self._count -= 1
        return item

    def discard(self, key: Hashable, item: Item) -> None:
        """Have an item wait no more, if it still does."""
        items = self._queues.get(key, deque())
        if item in items:
            items.remove(item)
            self._count -= 1
            if not items:
                del self._queues[key]
