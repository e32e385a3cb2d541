"""Locks that sessions outside Ringback hold on PostgreSQL: who needs what they lock waits, and no other.

Also what such a server, or a role, sets for all sessions.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from receiver.errors import StorageUnavailable
from receiver.storage import set_apart
from receiver.storage.database import Database
from receiver.storage.postgresql import table_locks
from receiver.storage.postgresql.server import connect
from receiver.storage.transaction import Transaction
from tests.fakes.databases import outside
from tests.storage.rows import add_organization, add_tasks, task_by_key, task_row

pytestmark = pytest.mark.postgresql_only("SQLite has one lock for all rows")


@pytest.fixture(autouse=True)
async def _organization(database: Database) -> None:
    assert await add_organization(database) == 1


@contextmanager
def holding(url: str, lock: str) -> Iterator[None]:
    """Hold a lock in a session that is not Ringback's."""
    with outside(url) as foreign:
        foreign.execute("BEGIN")
        foreign.execute(lock)
        yield
        foreign.execute("ROLLBACK")


async def load(tx: Transaction, uids: Sequence[str]) -> list[str | Exception]:
    """Lock tasks, as each update does. A handler."""
    found = await tx.load_tasks(uids)
    await tx.execute(text("UPDATE task SET progress = progress + 1 WHERE uid = ANY(:uids)"), [{"uids": list(found)}])
    return list(uids)


async def test_a_locked_row_delays_only_the_write_that_needs_it(database: Database, url: str) -> None:
    rows = [task_row() for _ in range(50)]
    keys = await add_tasks(database, *rows)
    clock = asyncio.get_running_loop().time
    with holding(url, f"SELECT 1 FROM task WHERE id = {keys[20]} FOR UPDATE"):
        began = clock()
        writes = [asyncio.create_task(database.writer.write(load, row["uid"])) for row in rows]
        locked = writes.pop(20)
        await asyncio.gather(*writes)
        assert clock() - began < set_apart.PATIENCE_SECONDS
        assert not locked.done()
        assert await database.writer.write(load, rows[0]["uid"]) == rows[0]["uid"]  # the queue goes on
    assert await locked == rows[20]["uid"]
    assert (await task_by_key(database, keys[20]))["progress"] == 1


async def test_a_write_that_stays_locked_is_unavailable_after_its_time(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_apart, "PATIENCE_SECONDS", 0.3)
    row = task_row()
    await add_tasks(database, row)
    with holding(url, "LOCK TABLE task IN ACCESS EXCLUSIVE MODE"):
        with pytest.raises(StorageUnavailable, match=r"locked by another session.*nothing was stored"):
            await database.writer.write(load, row["uid"])
        with pytest.raises(StorageUnavailable, match="lock timeout"):
            await task_by_key(database, 1)
    assert await database.writer.write(load, row["uid"]) == row["uid"]
    assert (await task_by_key(database, 1))["progress"] == 1


async def test_a_check_names_a_table_that_another_session_has_locked(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_locks, "OLD_SECONDS", 0.0)
    await database.check()
    refused = pytest.raises(StorageUnavailable, match=r"table delivery is locked by session \d+")
    with holding(url, "LOCK TABLE delivery IN SHARE MODE"), refused:
        await database.check()
    await database.check()


@pytest.mark.parametrize(("given", "expected"), [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")])
async def test_a_commit_waits_for_the_disk_whatever_the_database_sets(url: str, given: str, expected: str) -> None:
    name = url.split("?")[0].rpartition("/")[2]
    with outside(url) as server:
        server.execute(f"ALTER DATABASE {name} SET synchronous_commit = '{given}'")
        server.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
        server.execute(f"ALTER DATABASE {name} SET statement_timeout = '5s'")
        server.execute(f"ALTER DATABASE {name} SET array_nulls = off")
    connection = await connect(url)
    try:
        found = [
            await connection.fetchval(f"SHOW {name}")
            for name in ("synchronous_commit", "transaction_isolation", "statement_timeout", "array_nulls")
        ]
        assert found == [expected, "read committed", "14s", "on"]
    finally:
        await connection.close()


async def test_a_long_statement_is_prepared_once_too(url: str) -> None:
    connection = await connect(url)
    try:
        await connection.fetch(f"SELECT 1 -- {'long' * 5000}")
        kept = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT 1 -- long%'"
        assert await connection.fetchval(kept) == 1
    finally:
        await connection.close()


async def test_no_time_out_of_the_server_ends_the_wait_of_a_commit_for_its_standby(database: Database) -> None:
    found = await database.writer.run(lambda tx: tx.execute(text("SHOW statement_timeout")))
    assert found[0][0] == "0"


async def test_work_without_a_bound_is_not_ended_by_the_server_either(url: str) -> None:
    connection = await connect(url, command_seconds=None)
    try:
        assert await connection.fetchval("SHOW statement_timeout") == "0"
    finally:
        await connection.close()
