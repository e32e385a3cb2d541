"""SQLAlchemy's connections, awaited: they are back in the pool when they should be, whatever happens meanwhile."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from models import core
from receiver.settings import Settings
from receiver.storage.postgresql.server import core_engine
from receiver.storage.schema import migrate

pytestmark = pytest.mark.postgresql_only("SQLite's connections are synchronous")


async def test_a_caller_that_is_cancelled_gives_its_connection_back_before_it_ends(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = core_engine(settings.database_url, writes=True, pool_size=1, max_overflow=0, pool_timeout=5)
    has_it, gives_it = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async with engine.connect() as connection:
            close = connection.close

            async def closed() -> None:
                gives_it.set()
                await asyncio.sleep(0.05)
                await close()

            monkeypatch.setattr(connection, "close", closed)
            has_it.set()
            await connection.execute(text("SELECT pg_sleep(30)"))

    reading = asyncio.create_task(read())
    await has_it.wait()
    reading.cancel()
    await gives_it.wait()
    reading.cancel()  # while it closes
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert checked_out(engine.sync_engine.pool) == 0
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
    await engine.dispose()


async def test_rows_are_written_and_read_by_many_parameters(settings: Settings) -> None:
    await migrate(settings)
    engine = core_engine(settings.database_url, writes=True, pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        rows = [{"name": "one", "value": "\x001"}, {"name": "two", "value": "2"}]
        await connection.execute(insert(core.installation_fact), rows)
        query = select(core.installation_fact.c.value).where(core.installation_fact.c.name.in_(("one", "two")))
        found = await connection.execute(query.order_by(core.installation_fact.c.name))
        assert found.scalars().all() == ["\ufffd1", "2"]
    assert checked_out(engine.sync_engine.pool) == 0
    await engine.dispose()


def checked_out(pool: Any) -> int:
    return int(pool.checkedout())
