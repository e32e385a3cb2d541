"""The room that one large task takes, before its documents are read."""

from typing import Any

import pytest

from receiver.errors import Unavailable
from receiver.events.after_commit import Waiting
from receiver.storage.large_rows import SMALL_BYTES
from receiver.tracking.tracker import Tracker

NOTHING: Any = None


class OneTask:
    """A database with one task of this size; `whole` counts the reads of all of it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.whole = 0

    async def read(self, query: Any, parameters: Any = None) -> list[dict[str, Any]]:
        self.whole += "CASE" not in str(query)  # that of a small one alone
        return [{"uid": "a", "status": "queued", "stored_bytes": self.size}]


def tracker_of(database: Any) -> Tracker:
    return Tracker(database, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, Waiting())


async def refuse(size: int) -> None:
    raise Unavailable(f"no room for {size}")


async def test_a_large_task_is_not_read_before_there_is_room_for_it() -> None:
    database = OneTask(1_000_000)
    tracker = tracker_of(database)
    with pytest.raises(Unavailable, match="4000000"):
        await tracker.task(1, "a", refuse)
    with pytest.raises(Unavailable, match="4000000"):
        await tracker.wait(1, "a", 0, refuse)
    assert database.whole == 0
    assert (await tracker.task(1, "a"))["uid"] == "a"
    assert database.whole == 1


async def test_a_small_task_is_read_once_and_takes_no_room() -> None:
    database = OneTask(SMALL_BYTES)
    assert (await tracker_of(database).task(1, "a", refuse))["uid"] == "a"
    assert database.whole == 0
