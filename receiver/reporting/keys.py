"""Finds where the rows of a range of time begin, by their age, and divides them into chunks."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from receiver.storage.database import Snapshot
from receiver.storage.report.window import Chunk, KeysInTime, ReportWindow

KEYS_AT_ONCE = 20_000
"""How many keys a chunk has: a query takes some tenths of a second."""
_DISORDER = timedelta(hours=2)
"""How much older than a row another one with a greater key may be: clocks step, and transactions take time."""


async def chunks_of(snapshot: Snapshot, window: ReportWindow, keys: KeysInTime) -> Iterator[Chunk]:
    """Return the chunks of a table that may have rows of the window.

    The first key is found by halving, in some dozens of reads of one row.
    """
    (found,) = await snapshot.read(keys.last)
    end = found["id"] or 0
    first = await _first_key(snapshot, end, window.since - _DISORDER, keys)
    starts = range(first, end + 1, KEYS_AT_ONCE)
    return (Chunk(window, start, min(start + KEYS_AT_ONCE - 1, end)) for start in starts)


async def _first_key(snapshot: Snapshot, end: int, since: datetime, keys: KeysInTime) -> int:
    low, high = 1, end + 1
    while low < high:
        middle = (low + high) // 2
        rows = await snapshot.read(keys.row_from(middle))
        if not rows or rows[0]["created_at"] >= since:
            high = middle
        else:
            low = rows[0]["id"] + 1
    return low
