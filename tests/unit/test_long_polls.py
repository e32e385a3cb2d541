"""A long poll while it waits: what ends the wait, and what it holds meanwhile."""

import asyncio
import gc
import weakref
from typing import Any

import pytest
import uvloop

from receiver.events import after_commit
from receiver.events.after_commit import Waiting
from receiver.events.wakeable import Alarms


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


async def noted(waiter: "asyncio.Future[None]", name: str, ended: list[str]) -> None:
    await waiter
    ended.append(name)


async def test_alarms_ring_in_the_order_of_their_times_also_those_that_were_set_later() -> None:
    alarms, ended, loop = Alarms(), list[str](), asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        for name, seconds in (("third", 0.06), ("first", 0.02), ("fourth", 0.06), ("second", 0.04), ("now", 0)):
            waiter = loop.create_future()
            alarms.set(waiter, seconds)
            group.create_task(noted(waiter, name, ended))
    assert ended == ["now", "first", "second", "third", "fourth"]
    assert len(alarms) == 0


async def test_alarms_of_waits_that_have_ended_are_not_kept_until_their_times() -> None:
    alarms, loop = Alarms(), asyncio.get_running_loop()
    going_on = [loop.create_future() for _ in range(3000)]
    for waiter in going_on:
        alarms.set(waiter, 0.2)
    for _ in range(50_000):
        waiter = loop.create_future()
        alarms.set(waiter, 60)
        waiter.set_result(None)
    assert len(alarms) <= 2 * len(going_on) + 1
    await asyncio.gather(*going_on)  # removing the others has removed none of these
    for _ in range(50_000):
        waiter = loop.create_future()
        alarms.set(waiter, 60)
        waiter.cancel()
    assert len(alarms) <= 1024


async def test_a_poll_that_was_woken_is_not_woken_again_by_its_earlier_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_commit, "_REREAD_SECONDS", 0.2)
    waiting, reads = Waiting(), 0

    async def read() -> Row:
        nonlocal reads
        reads += 1
        return Row()

    poll = asyncio.create_task(waiting.read_until("a", 0.7, read, lambda _: False))
    for _ in range(6):
        await asyncio.sleep(0.02)
        waiting.wake("a")
    await poll
    assert reads <= 1 + 6 + 4


def test_what_is_left_of_a_wait_is_not_waited_for_in_parts_of_a_millisecond() -> None:
    async def reads(seconds: float) -> int:
        waiting, reads = Waiting(), 0

        async def read() -> Row:
            nonlocal reads
            reads += 1
            return Row()

        await waiting.read_until("a", seconds, read, lambda _: False)
        return reads

    async def of_many() -> list[int]:
        return await asyncio.gather(*(reads(0.02 + each * 0.00037) for each in range(100)))

    assert set(uvloop.run(of_many())) == {2}
