"""Writes set apart: they met a row or table that another session has locked, and are tried again beside the queue.

Why: a batch waits for the slowest lock that any of its statements needs. A lock of our own processes lasts for
milliseconds, but a person, a report or a migration may hold one for minutes, and one such row would hold up every write
that happens to share a batch with it, and all batches behind. So a wait for a lock has a short bound. A batch that
exceeds it is put here in two halves, and each half that exceeds it again is halved again, until the writes that need
the locked rows are alone; all others are stored at their next try. The writer turns to one part at a time and to the
queue in between, and while any write is apart every transaction waits for a lock only briefly, so that the search costs
the queue little. No key of a row has to be known for this: it works for any statement and any kind of lock.

A write that stays locked is tried again after growing waits. After `PATIENCE_SECONDS` its caller gets
`storage_unavailable`, or after `LONG_PATIENCE_SECONDS` where no client waits and the write may not be refused, such as
the outcome of a call already made.
"""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

PATIENCE_SECONDS = 5.0
LONG_PATIENCE_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5


class ApartWrite(Protocol):
    """What has to be known of a write here."""

    bounded: bool
    apart_until: float | None
    """When its caller gets an error, in seconds of the loop's clock; None if it was not set apart."""


Write = TypeVar("Write", bound=ApartWrite)


class _Part(Struct, Generic[Write]):
    writes: Sequence[Write]
    next_at: float
    pause: float = _FIRST_PAUSE_SECONDS


class SetApart(Generic[Write]):
    """The writes that are set apart, in parts that are tried each by itself. Times are of the loop's clock."""

    def __init__(self) -> None:
        self._parts: list[_Part[Write]] = []
        self._tried: _Part[Write] | None = None

    def __bool__(self) -> bool:
        """Return whether a write is set apart, or is being tried again."""
        return bool(self._parts) or self._tried is not None

    @property
    def next_at(self) -> float:
        """When the next part is to be tried. Ask only while there is one."""
        return min(part.next_at for part in self._parts)

    def add(self, writes: Sequence[Write], now: float) -> Sequence[Write]:
        """Set the writes of a batch apart; return those whose time is over, which are not."""
        for write in writes:
            if write.apart_until is None:
                write.apart_until = now + (PATIENCE_SECONDS if write.bounded else LONG_PATIENCE_SECONDS)
        left = [write for write in writes if (write.apart_until or 0.0) > now]
        if len(left) == 1:
            tried = self._tried
            pause = min(tried.pause * 2, _LONGEST_PAUSE_SECONDS) if tried and len(tried.writes) == 1 else None
            pause = pause or _FIRST_PAUSE_SECONDS
            self._parts.append(_Part(left, now + pause, pause))
        elif left:
            middle = len(left) // 2
            self._parts += [_Part(left[:middle], now), _Part(left[middle:], now)]
        return [write for write in writes if (write.apart_until or 0.0) <= now]

    def over(self, now: float) -> Sequence[Write]:
        """Take the writes whose time is over, tried or not: with many parts their turn may come late."""
        found: list[Write] = []
        for part in self._parts:
            found += [write for write in part.writes if (write.apart_until or 0.0) <= now]
            part.writes = [write for write in part.writes if (write.apart_until or 0.0) > now]
        self._parts = [part for part in self._parts if part.writes]
        return found

    def take(self, now: float) -> Sequence[Write]:
        """Take the part that is to be tried now, if there is one; call `tried` when that is done."""
        part = min(self._parts, key=lambda part: part.next_at, default=None)
        if part is None or part.next_at > now:
            return ()
        self._parts.remove(part)
        self._tried = part
        return part.writes

    def tried(self) -> None:
        """Note that the part which was taken has been stored, or is set apart again."""
        self._tried = None

    def hurry(self, now: float) -> None:
        """End every wait within `PATIENCE_SECONDS`: the writer closes."""
        for part in self._parts:
            for write in part.writes:
                write.apart_until = min(write.apart_until or now, now + PATIENCE_SECONDS)
