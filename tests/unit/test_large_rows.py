"""The room that large answers take: before their rows are read, and in turn."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import Executable, column, select
from sqlalchemy.types import Integer
from starlette.requests import Request

from receiver.api.endpoint import Call
from receiver.asgi import BODIES
from receiver.body_budget import BodyBudget, BodyBudgets
from receiver.errors import Unavailable
from receiver.storage.large_rows import MOST_PAGE_BYTES, SMALL_BYTES, LargeRows, read_first

NOTHING: Any = None
KEY = column("id", Integer)
PAGE = LargeRows(select(KEY), KEY, column("bytes", Integer))
SIZE = 1_000_000


class Table:
    """Rows of `size` bytes, of which the database knows `stored`; `reads` are what was asked of it."""

    def __init__(self, count: int, size: int, stored: int | None = None) -> None:
        self.count = count
        self.size = size
        self.stored = size if stored is None else stored
        self.reads: list[str] = []

    async def read(self, query: Executable) -> list[dict[str, Any]]:
        text = str(query)
        if "AS key" in text:
            self.reads.append("sizes")
            return [{"key": number, "size": self.stored} for number in range(self.count)]
        self.reads.append("rows")
        count = 1 if "IN" in text else self.count
        return [{"id": 0, "text": "x" * self.size} for _ in range(count)]


async def test_a_large_page_is_not_read_before_there_is_room_for_it() -> None:
    table = Table(3, SIZE)
    asked: asyncio.Queue[int] = asyncio.Queue()
    room = asyncio.Event()

    async def hold(size: int) -> None:
        asked.put_nowait(size)
        await room.wait()

    reading = asyncio.create_task(read_first(table.read, PAGE, hold))
    async with asyncio.timeout(5):
        assert await asked.get() >= 3 * SIZE
        assert table.reads == ["sizes"]
        room.set()
        assert len((await reading)[0]) == 3


async def test_a_page_takes_no_room_for_rows_that_it_does_not_read() -> None:
    held = await taken(Table(100, SIZE))
    assert MOST_PAGE_BYTES <= held <= 5 * (MOST_PAGE_BYTES + SIZE)


async def test_a_small_page_takes_none() -> None:
    assert await taken(Table(10, 10)) == 0
    assert await taken(Table(0, 10)) == 0


async def test_a_page_that_is_larger_than_it_was_stored_takes_the_rest_when_it_is_known() -> None:
    assert await taken(Table(1, SIZE, stored=100)) == await taken(Table(1, SIZE, stored=SIZE // 2)) >= SIZE


async def taken(table: Table) -> int:
    taken: list[int] = []

    async def hold(size: int) -> None:
        taken.append(size)

    await read_first(table.read, PAGE, hold)
    assert all(size > SMALL_BYTES for size in taken)
    return sum(taken)


async def test_a_request_holds_room_for_its_answer_until_it_ends_and_another_waits() -> None:
    budgets = BodyBudgets.of(16 * SIZE, 5, lambda: None)
    ends = asyncio.Event()
    begun: asyncio.Queue[str] = asyncio.Queue()

    async def request(name: str) -> None:
        await call_with(budgets).hold(3 * SIZE)
        begun.put_nowait(name)
        await ends.wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as requests:
        requests.create_task(request("first"))
        requests.create_task(request("second"))
        assert await begun.get() == "first"
        assert budgets.answers.held == 3 * SIZE
        assert begun.empty()
        assert not budgets.is_pressed  # a slow body gets no less time for it
        ends.set()
        assert await begun.get() == "second"
    await asyncio.sleep(0)
    assert (budgets.answers.held, budgets.api.held) == (0, 0)


async def test_a_stream_that_let_go_does_not_keep_a_page_larger_than_the_bound_from_its_turn() -> None:
    budgets = BodyBudgets.of(4 * SIZE, 0.05, lambda: None)
    stream = call_with(budgets)
    await stream.hold(SIZE // 4)
    stream.let_go()
    stream.let_go()
    await asyncio.create_task(call_with(budgets).hold(3 * SIZE))
    await stream.hold(SIZE // 4)
    assert budgets.answers.held == SIZE // 4


async def test_an_answer_that_waits_too_long_is_refused_with_what_is_full() -> None:
    budget = BodyBudget(SIZE, 0.01, lambda: None, "large answers")
    await budget.take(1, SIZE)
    with pytest.raises(Unavailable, match="too many bytes of large answers"):
        await asyncio.create_task(budget.take(2, SIZE))


def call_with(budgets: BodyBudgets) -> Call:
    principal: Any = type("Owner", (), {"organization_id": 1})()
    scope = {"type": "http", "extensions": {BODIES: {"budgets": budgets}}}
    return Call(Request(scope), NOTHING, principal)
