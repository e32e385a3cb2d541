"""Heavy writes on PostgreSQL have a connection of their own: others do not wait for them."""

import asyncio

import pytest
from sqlalchemy import func, select, text

from receiver.storage.database import Database
from receiver.storage.open_writers import EVENTS, OpenWriters
from receiver.storage.postgresql.own_sessions import LIVE_WRITERS
from receiver.storage.tables import organizations
from receiver.storage.transaction import Transaction
from receiver.storage.write_queue import HEAVY
from tests.storage.rows import add_organization

pytestmark = pytest.mark.postgresql_only("SQLite has one writer")


class Held:
    """Work of a write that is in its transaction until `end` is called."""

    def __init__(self, statement: str) -> None:
        self._statement = statement
        self._began = asyncio.Event()
        self._may_end = asyncio.Event()

    async def begun(self) -> None:
        await self._began.wait()

    def end(self) -> None:
        self._may_end.set()

    async def __call__(self, tx: Transaction) -> str:
        await tx.execute(text(self._statement))
        self._began.set()
        await self._may_end.wait()
        return "written"


async def count_organizations(tx: Transaction) -> int:
    return int((await tx.execute(select(func.count()).select_from(organizations)))[0][0])


@pytest.mark.parametrize(("items", "size"), [(HEAVY, 0), (1, 1_000_000)])
async def test_light_writes_are_stored_while_a_heavy_one_is_under_way(
    database: Database, items: int, size: int
) -> None:
    held = Held("SELECT 1")
    heavy = asyncio.create_task(database.writer.run(held, items=items, size=size))
    await held.begun()
    assert await add_organization(database) == 1
    assert await database.writer.run(count_organizations) == 1
    next_heavy = asyncio.create_task(database.writer.run(count_organizations, items=HEAVY))
    assert await database.writer.run(count_organizations) == 1
    assert not next_heavy.done(), "heavy ones come one after the other"
    held.end()
    assert (await heavy, await next_heavy) == ("written", 1)


async def test_who_reads_up_to_now_waits_for_a_heavy_write_too(database: Database) -> None:
    held = Held("DELETE FROM event")
    heavy = asyncio.create_task(database.writer.run(held, items=HEAVY))
    await held.begun()
    writers = await OpenWriters.of(database, EVENTS)
    assert not await writers.ended(0.05)
    held.end()
    await heavy
    assert await writers.ended()


async def test_a_process_counts_once_however_many_connections_write(database: Database) -> None:
    await database.writer.run(count_organizations)
    await database.writer.run(count_organizations, items=HEAVY)
    assert list((await database.read(text(LIVE_WRITERS)))[0].values()) == [1]


async def test_closing_stores_heavy_writes_that_wait(database: Database) -> None:
    held, following = Held("SELECT 1"), Held("SELECT 1")
    writes = [asyncio.create_task(database.writer.run(each, items=HEAVY)) for each in (held, following)]
    await held.begun()
    closing = asyncio.create_task(database.writer.aclose())
    held.end()
    following.end()
    await asyncio.wait_for(closing, 10)
    assert await asyncio.gather(*writes) == ["written", "written"]
