"""Tables in partitions: made while they are in use, kept ahead of what is written, dropped when empty, and undone."""

import asyncio
import json
import re
from collections.abc import Callable, MutableMapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, NullPool, delete, select

import models
from receiver.domain.keyring import KeyRing
from receiver.errors import StartError
from receiver.settings import Settings
from receiver.storage.after_restore import SEQUENCE_GAP
from receiver.storage.backup import back_up
from receiver.storage.database import Database
from receiver.storage.maintenance import check_database, partition_database, unite_database
from receiver.storage.postgresql import locked_tables, partitioning
from receiver.storage.postgresql.dump import check_dump
from receiver.storage.postgresql.partitions import BOUND, DIVIDED
from receiver.storage.postgresql.server import core_engine
from receiver.storage.restoring import restore
from receiver.storage.schema import migrate
from receiver.storage.tables import deliveries, delivery_attempts, events
from receiver.workers.cleanup import Cleaner
from tests.fakes import databases
from tests.fakes.command import CLEAN, run_command
from tests.fakes.databases import outside, settings_in
from tests.fakes.postgresql_programs import programs
from tests.storage.rows import (
    NOW,
    add_organization,
    add_subscription,
    add_tasks,
    new_delivery,
    new_event,
    new_settlement,
    task_row,
)
from tests.storage.test_postgresql import HOT, QUERIES, compiled, full, plan_of

__all__ = ["full"]

pytestmark = pytest.mark.postgresql_only("SQLite has no partitions")
RANGE = 10
OLD = NOW - timedelta(days=40)
TABLES = [each.table for each in DIVIDED]
STRUCTURE = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE contype IN ('p', 'u', 'f') AND connamespace = current_schema()::regnamespace
UNION ALL SELECT indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid)
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE relnamespace = current_schema()::regnamespace
UNION ALL SELECT attrelid::regclass::text, attname, coalesce(pg_get_expr(adbin, adrelid), '') || attnotnull
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attnum > 0 AND relkind = 'r' AND relnamespace = current_schema()::regnamespace
UNION ALL SELECT relname, relkind::text, reloptions::text || coalesce(relacl::text, '') FROM pg_class
WHERE relkind IN ('r', 'S') AND relnamespace = current_schema()::regnamespace
UNION ALL SELECT 'sequence', each, pg_get_serial_sequence(each, 'id')
FROM unnest(ARRAY['event', 'delivery', 'delivery_attempt']) AS each
ORDER BY 1, 2, 3
"""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitioning, "LEAST_ROWS", RANGE)
    monkeypatch.setattr(locked_tables, "PAUSE_SECONDS", 0.01)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


async def delivered(database: Database, subscription_id: int, **fields: Any) -> int:
    """Add an old task with an event that was delivered; return the key of the task."""
    ended = {"status": "completed", "created_at": OLD, "ended_at": OLD, **fields}
    (task,) = await add_tasks(database, task_row(**ended))
    (event,) = await database.writer.run(lambda tx: tx.insert_events([new_event(task, created_at=OLD)]))
    row = new_delivery(subscription_id, event, task, attempt=1, due_at=NOW)
    (key,) = await database.writer.run(lambda tx: tx.insert_deliveries([row]))
    done = new_settlement(key, subscription_id)
    assert await database.writer.run(lambda tx: tx.settle([done])) == [True]
    return task


def names(settings: Settings, table: str) -> list[str]:
    inherited = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = ?::regclass ORDER BY 1"
    with outside(settings.database_url) as server:
        return [name for (name,) in server.execute(inherited, (table,))]


def rows(settings: Settings) -> dict[str, list[Any]]:
    with outside(settings.database_url) as server:
        return {table: server.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in TABLES}


def structure(settings: Settings) -> list[Any]:
    with outside(settings.database_url) as server:
        return list(server.execute(STRUCTURE))


async def run_sync(settings: Settings, work: Callable[[Connection], Any]) -> Any:
    engine = core_engine(settings.database_url, writes=True, poolclass=NullPool)
    async with engine.connect() as connection:
        result = await connection.run_sync(work)
    await engine.dispose()
    return result


async def test_tables_are_partitioned_while_they_are_written_to_and_lose_nothing(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Writes go on for as long as the tables are not in their places.
    monkeypatch.setattr(partitioning, "LEAST_ROWS", RANGE * 1000)
    await add_organization(database)
    subscription = await add_subscription(database)
    written = [await delivered(database, subscription) for _ in range(3)]
    is_over = asyncio.Event()

    async def write() -> None:
        while not is_over.is_set():
            written.append(await delivered(database, subscription))

    writing = asyncio.create_task(write())
    found = await partition_database(settings)
    is_over.set()
    await writing
    assert [(each.table, each.done) for each in found] == [(table, True) for table in TABLES]
    assert [row["task_id"] for row in await database.read(select(events.c.task_id).order_by("id"))] == written
    assert {len(each) for each in rows(settings).values()} == {len(written)}
    assert [(each.done, each.first_until) for each in await partition_database(settings)] == [
        (False, each.first_until) for each in found
    ]
    foreign = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated AND conparentid = 0"
    with outside(settings.database_url) as server:
        assert server.execute(foreign).fetchone() == (0,)
        with pytest.raises(Exception, match="violates foreign key"):
            server.execute("DELETE FROM event")


async def test_partitions_are_made_ahead_and_emptied_ones_are_dropped(
    settings: Settings, database: Database, logged: list[MutableMapping[str, Any]]
) -> None:
    await add_organization(database)
    subscription = await add_subscription(database)
    await partition_database(settings)
    for _ in range(RANGE + 5):
        await delivered(database, subscription)
    kept = Cleaner(database, retention_days=30)
    await kept._keep_partitions()
    assert names(settings, "event") == ["event_default", "event_from_0", "event_from_11", "event_from_21"]
    assert await kept.clean(NOW) == {"tasks": RANGE + 5}
    young = await delivered(database, subscription, ended_at=NOW)
    await kept._keep_partitions()
    for table in TABLES:
        assert names(settings, table) == [f"{table}_default", f"{table}_from_11", f"{table}_from_21"]
    assert [row["task_id"] for row in await database.read(select(events.c.task_id))] == [young]
    assert sum(record["event"] == "partition dropped" for record in logged) == 3
    await kept._keep_partitions()
    assert names(settings, "event") == ["event_default", "event_from_11", "event_from_21"]


async def test_what_has_no_partition_is_stored_and_told_and_the_next_one_begins_behind_it(
    settings: Settings, database: Database, logged: list[MutableMapping[str, Any]]
) -> None:
    await add_organization(database)
    subscription = await add_subscription(database)
    await partition_database(settings)
    count = 2 * RANGE + 6  # a partition, the one ahead of it, and no other yet
    for _ in range(count):
        await delivered(database, subscription)
    (found,) = [each for each in await check_database(settings) if each.check == "partitions"]
    assert (found.severity, "event_default" in found.found) == ("warning", True)
    kept = Cleaner(database, retention_days=30)
    await kept._keep_partitions()
    assert sum(record["event"] == "rows outside the partitions" for record in logged) == 3
    for table in TABLES:
        assert f"{table}_from_{count + 1}" in names(settings, table)
    task = await delivered(database, subscription, ended_at=NOW)
    with outside(settings.database_url) as server:
        assert server.execute(f"SELECT task_id FROM event_from_{count + 1}").fetchall() == [(task,)]
    assert await kept.clean(NOW) == {"tasks": count}


async def test_attempts_keep_their_partition_as_long_as_a_delivery_of_it_may_be_sent_again(
    settings: Settings, database: Database
) -> None:
    await add_organization(database)
    subscription = await add_subscription(database)
    await partition_database(settings)
    for _ in range(RANGE + 5):
        await delivered(database, subscription)
    await database.writer.run(lambda tx: tx.execute(delete(delivery_attempts)))
    kept = Cleaner(database, retention_days=30)
    await kept._keep_partitions()
    assert "delivery_attempt_from_0" in names(settings, "delivery_attempt")
    await database.writer.run(lambda tx: tx.execute(delete(deliveries)))
    await kept._keep_partitions()
    assert "delivery_attempt_from_0" not in names(settings, "delivery_attempt")
    assert "delivery_from_0" not in names(settings, "delivery")
    assert "event_from_0" in names(settings, "event")


async def test_an_interrupted_partitioning_refuses_no_row_and_is_gone_on_with(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_organization(database)
    subscription = await add_subscription(database)
    await delivered(database, subscription)
    monkeypatch.setattr(partitioning, "DIVIDED", DIVIDED[:1])
    await partition_database(settings)
    key = "CONSTRAINT delivery_event_id_fkey"
    again = f"DROP {key}, ADD {key} FOREIGN KEY (event_id) REFERENCES event NOT VALID"
    with outside(settings.database_url) as server:  # as if it was killed before a check, and again in its second step
        server.execute(f"ALTER TABLE delivery ADD CONSTRAINT {BOUND} CHECK (id < 3) NOT VALID, {again}")
    await Cleaner(database, retention_days=0)._keep_partitions()
    with outside(settings.database_url) as server:
        unchecked = "SELECT conname FROM pg_constraint WHERE NOT convalidated AND conparentid = 0"
        assert server.execute(unchecked).fetchall() == []
    for _ in range(3):
        await delivered(database, subscription)
    monkeypatch.setattr(partitioning, "DIVIDED", DIVIDED)
    assert [each.done for each in await partition_database(settings)] == [False, True, True]
    await delivered(database, subscription)


async def test_tables_that_stay_in_use_are_left_as_they_were_and_it_is_said_who_uses_them(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_organization(database)
    for name, value in (("TRIES", 2), ("LOCK_MILLISECONDS", 400)):
        monkeypatch.setattr(locked_tables, name, value)
    before = structure(settings)
    with outside(settings.database_url) as foreign:
        foreign.execute("SET application_name = 'a report'")
        foreign.execute("BEGIN")
        foreign.execute("SELECT count(*) FROM event")
        with pytest.raises(StartError, match=r"in use by session \d+ of user \w+ \(a report\)"):
            await partition_database(settings)
        foreign.execute("ROLLBACK")
    assert structure(settings) == before
    with outside(settings.database_url) as server:
        server.execute("CREATE TABLE event_default (id bigint)")  # the name of a partition is taken
    with pytest.raises(StartError, match=r'cannot be partitioned \(relation "event_default" already exists\)'):
        await partition_database(settings)
    with outside(settings.database_url) as server:
        server.execute("DROP TABLE event_default")
    assert structure(settings) == before


async def test_partitions_are_united_to_what_was_there_before(settings: Settings) -> None:
    with outside(settings.database_url) as server:
        server.execute("GRANT SELECT ON event TO PUBLIC")
    before = structure(settings)
    async with await Database.open(settings) as database:
        await add_organization(database)
        subscription = await add_subscription(database)
        for _ in range(5):
            await delivered(database, subscription)
        await partition_database(settings)
        for _ in range(RANGE * 2):
            await delivered(database, subscription)
        with pytest.raises(StartError, match="serve the database"):
            await unite_database(settings)
    kept = rows(settings)
    assert [(each.done, each.first_until) for each in await unite_database(settings)] == [(True, None)] * 3
    assert structure(settings) == before
    assert rows(settings) == kept
    assert [each.done for each in await unite_database(settings)] == [False] * 3
    async with await Database.open(settings) as database:
        await delivered(database, subscription)


async def test_the_command_partitions_and_undoes_it(settings: Settings, tmp_path: Path) -> None:
    environment = {**CLEAN, **databases.present.environment(tmp_path)}

    async def ran(*options: str) -> tuple[int, str]:
        command = ("database", "partition", *options)
        status, out, _ = await run_command(*command, folder=tmp_path, environment=environment)
        return status, out

    status, out = await ran()
    assert (status, out.splitlines()[0]) == (0, "event: partitions, the first for rows below 1000001")
    status, out = await ran("--undo", "--json")
    expected = [{"table": table, "done": True, "first_until": None} for table in TABLES]
    assert (status, json.loads(out)["tables"]) == (0, expected)


async def test_a_later_migration_works_on_partitions(settings: Settings, add_revision: Callable[..., None]) -> None:
    await partition_database(settings)

    def differences(connection: Connection) -> list[str]:
        found = compare_metadata(MigrationContext.configure(connection), models.metadata)
        return [f"{kind} {what}" for each in found for kind, what, *_ in [each[0] if isinstance(each, list) else each]]

    found = await run_sync(settings, differences)
    assert not [each for each in found if "column" in each.split()[0] or each.startswith("add_index")]
    add_revision("op.execute('ALTER TABLE event ADD later integer'); op.create_index('ix_l', 'event', ['later'])")
    assert (await migrate(settings))[1] == "9999"
    with outside(settings.database_url) as server:
        server.execute("SELECT later FROM event_from_0")


async def test_a_backup_of_partitions_is_checked_and_restored(settings: Settings, tmp_path: Path) -> None:
    async with await Database.open(settings) as database:
        await add_organization(database)
        subscription = await add_subscription(database)
        await partition_database(settings)
        for _ in range(RANGE + 5):
            await delivered(database, subscription)
    target = tmp_path / "made.backup"
    folder = programs().folder
    await back_up(settings, target, overwrite=False, programs=folder, on_progress=lambda *_: None)
    assert (await check_dump(target, folder)).is_newest()
    before = rows(settings)
    empty = settings_in(tmp_path / "empty", migrated=False)

    async def restored(into: Settings, *, is_forced: bool) -> None:
        key = KeyRing(["none is used"])
        await restore(into, key, target, is_forced=is_forced, programs=folder, on_progress=lambda *_: None)
        assert rows(into) == before

    await restored(empty, is_forced=False)
    with pytest.raises(StartError, match=r"partitioned tables.*--undo"):
        await restored(settings, is_forced=True)
    await unite_database(settings)
    await restored(settings, is_forced=True)
    async with await Database.open(empty) as database:  # its events go on far above what the partitions are for
        await delivered(database, subscription, ended_at=NOW)
        await Cleaner(database, retention_days=30)._keep_partitions()
        (new,) = set(names(empty, "event")) - {"event_default", "event_from_0", "event_from_11"}
        await delivered(database, subscription, ended_at=NOW)
    with outside(empty.database_url) as server:
        assert server.execute("SELECT count(*) FROM event_default").fetchone() == (1,)
        assert server.execute(f"SELECT count(*) FROM {new}").fetchone() == (1,)
        bound = "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = ?"
        (first, end) = map(int, re.findall(r"\d+", server.execute(bound, (new,)).fetchone()[0]))
    assert first > SEQUENCE_GAP
    assert end - first <= len(before["event"]) + 1  # the gap makes it no longer


@pytest.fixture
async def _organization(database: Database) -> None:
    await add_organization(database)


@pytest.mark.usefixtures("_organization")
async def test_no_hot_statement_scans_a_whole_partition(full: str, settings: Settings) -> None:
    await partition_database(settings)
    with outside(full) as server:
        server.execute(
            "INSERT INTO event (uid, organization_id, task_id, type, snapshot, created_at) "
            "SELECT gen_random_uuid(), 1, id, 'task.completed', '{}', now() FROM task LIMIT 5000"
        )
        server.execute("ANALYZE")
    for name, (query, arguments) in {**HOT, **compiled(QUERIES)}.items():
        plan = await plan_of(full, query, *arguments)
        for table in ("task", "delivery_from_0", "event_from_0", "delivery_attempt_from_0"):
            assert f"Seq Scan on {table}" not in plan, f"{name}:\n{plan}"


async def test_a_plan_that_the_writer_keeps_from_an_empty_partition_uses_its_indexes(
    settings: Settings, database: Database
) -> None:
    await add_organization(database)
    await partition_database(settings)  # with statistics that say: no rows
    query, arguments = HOT["settle"]
    lines = await database.writer.run(lambda tx: tx._driver.fetch(f"EXPLAIN {query}", *arguments))  # type: ignore[attr-defined]
    plan = "\n".join(line[0] for line in lines)
    assert "Index Scan" in plan
    assert "Seq Scan" not in plan, plan
