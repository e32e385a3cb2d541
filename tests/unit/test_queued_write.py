"""What the callers of a batch are told, and when."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from receiver.storage.queued_write import FEW, QueuedWrite, Written
from receiver.storage.transaction import Transaction


async def _handler(_tx: Transaction, items: Sequence[Any]) -> Sequence[Any]:
    return items


def _batch(count: int) -> list[QueuedWrite]:
    return [QueuedWrite(_handler, number, 1, 1, False, False, None) for number in range(count)]


@pytest.mark.parametrize(("count", "first"), [(1, "attempt"), (FEW - 1, "attempt"), (FEW, "caller")])
async def test_where_callers_are_few_an_attempt_begins_before_they_go_on(count: int, first: str) -> None:
    order: list[str] = []
    woken = asyncio.Event()

    async def dispatcher() -> None:
        await woken.wait()
        beginning.append(asyncio.create_task(attempt()))

    async def attempt() -> None:
        order.append("attempt")

    async def caller(write: QueuedWrite) -> Any:
        result = await write.future
        order.append("caller")
        return result

    beginning: list[asyncio.Task[None]] = []
    batch = _batch(count)
    callers = [asyncio.create_task(caller(write)) for write in batch]
    waiting = asyncio.create_task(dispatcher())
    await asyncio.sleep(0)  # all of them wait now
    left = Written(list(range(count)), [woken.set], [lambda: order.append("bookkeeping")]).report(batch)
    assert await asyncio.gather(*callers) == list(range(count))
    await waiting
    await asyncio.gather(*beginning)
    assert next(each for each in order if each != "bookkeeping") == first
    assert (len(left), "bookkeeping" in order) == ((1, False) if count < FEW else (0, True))


async def test_a_caller_goes_on_at_once_when_nothing_follows_from_its_commit() -> None:
    batch = _batch(1)
    Written(["stored"], [], []).report(batch)
    assert batch[0].future.done()


async def test_a_caller_that_was_cancelled_is_told_nothing() -> None:
    batch = _batch(2)
    Written(["first", "second"], [lambda: None], []).report(batch)
    batch[0].future.cancel()
    assert await batch[1].future == "second"
