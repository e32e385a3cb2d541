"""A long poll while it waits: what ends the wait, and what it holds meanwhile."""

import asyncio
import gc
import weakref
from typing import Any

from receiver.events.after_commit import Waiting


class Row(dict[str, Any]):
    """A row that can be watched."""


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_holds_no_row_while_it_waits() -> None:
    waiting = Waiting()
    read: list[weakref.ref[Row]] = []

    async def read_row() -> Row:
        row = Row(status="pending" if len(read) < 1 else "completed")
        read.append(weakref.ref(row))
        return row

    gc.disable()
    try:
        polling = asyncio.create_task(waiting.read_until("a", 30, read_row, lambda row: row["status"] == "completed"))
        await turns()
        assert [row() for row in read] == [None]
    finally:
        gc.enable()
    waiting.wake("a")
    assert (await polling)["status"] == "completed"


async def test_a_change_before_the_wait_ends_it_and_the_next_one_begins_anew() -> None:
    waiting = Waiting()
    with waiting.watch("a") as watch:
        waiting.wake("a")
        assert await watch.changed(30)
        assert not await watch.changed(0)
        assert not await watch.changed(-1)
        changing = asyncio.create_task(watch.changed(30))
        await turns()
        assert not changing.done()
        waiting.wake("a")
        assert await changing


async def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    waiting = Waiting()
    with waiting.watch("a") as watch:
        changing = asyncio.create_task(watch.changed(30))
        await turns()
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
        waiting.wake("a")
        assert await watch.changed(0)
    assert not waiting.watched.is_set()
