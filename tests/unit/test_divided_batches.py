"""Batches that the writer divides, while what they are written to fails: every caller is told, and soon."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from receiver.errors import OutcomeUnknown, StorageUnavailable
from receiver.storage.optimistic import may_be_optimistic, stands_alone
from receiver.storage.transaction import Transaction
from receiver.storage.writer import WriteConnection, Writer

MOST_TRIES = 6
"""A batch has three parts, and its callers go on some turns of the loop after they are told."""
MANY_TRIES = 50


@may_be_optimistic
async def shared(_tx: Transaction, items: Sequence[int]) -> Sequence[int]:
    return items


@stands_alone
async def alone(_tx: Transaction, items: Sequence[int]) -> Sequence[int]:
    return items


async def with_locks(_tx: Transaction, items: Sequence[int]) -> Sequence[int]:
    return items


class _Nothing:
    """A transaction that writes nothing."""

    def __init__(self) -> None:
        self.after_commit: list[Callable[[], None]] = []
        self.bookkeeping: list[Callable[[], None]] = []


class _Failing:
    """A connection whose transactions are not stored, or not known to be."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.tries = 0
        self.come: Callable[[], None] = lambda: None
        """What happens at each try."""

    async def begin(self, *, is_brief: bool = False) -> Any:
        self.tries += 1
        self.come()
        await asyncio.sleep(0)  # what came is in the queue
        if self.how == "down":
            raise StorageUnavailable("down")
        return _Nothing()

    async def begin_optimistic(self) -> Any:
        return await self.begin()

    async def commit(self) -> None:
        raise OutcomeUnknown(later=asyncio.get_running_loop().create_future())

    async def rollback(self) -> None: ...

    def is_conflict(self, _error: BaseException) -> bool:
        return False

    def is_locked(self, _error: BaseException) -> bool:
        return False

    def unavailable(self, error: BaseException) -> Any:
        return error if isinstance(error, StorageUnavailable) else None

    async def aclose(self) -> None: ...


@asynccontextmanager
async def writing(how: str) -> AsyncIterator[tuple[Writer, _Failing]]:
    connection = _Failing(how)
    writer = Writer(cast(WriteConnection, connection), begin_optimistic=connection.begin_optimistic)
    writer.start()
    try:
        yield writer, connection
    finally:
        await writer.aclose()


@pytest.mark.parametrize("how", ["down", "unknown"])
@pytest.mark.parametrize("handler", [alone, with_locks])
async def test_what_follows_the_shared_part_is_not_put_off_for_as_long_as_more_of_that_comes(
    how: str, handler: Any
) -> None:
    coming: list[asyncio.Task[object]] = []

    def come(write: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        coming.append(asyncio.create_task(write))
        return coming[-1]

    def more() -> None:
        if connection.tries < MANY_TRIES:
            come(writer.write(shared, 3, bounded=False))

    async with asyncio.timeout(10), writing(how) as (writer, connection):
        connection.come = more
        come(writer.write(shared, 1, bounded=False))
        with pytest.raises((StorageUnavailable, OutcomeUnknown)):
            await come(writer.write(handler, 2))
        assert connection.tries <= MOST_TRIES
        connection.come = lambda: None
    told = await asyncio.gather(*coming, return_exceptions=True)
    expected = StorageUnavailable if how == "down" else OutcomeUnknown
    assert {type(each) for each in told} == {expected}


async def test_all_are_told_when_the_writer_closes_in_an_outage() -> None:
    async with asyncio.timeout(10), writing("down") as (writer, _):
        writes = [asyncio.create_task(writer.write(each, 1)) for each in (shared, alone, with_locks, shared)]
        await asyncio.sleep(0)
    told = await asyncio.gather(*writes, return_exceptions=True)
    assert {type(each) for each in told} == {StorageUnavailable}
