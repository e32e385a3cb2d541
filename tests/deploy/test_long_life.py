"""What a long life on PostgreSQL costs, with a million rows: partitioning in use, purges, and what autovacuum leaves.

It prints the figures that `deploy/guides/postgresql.md` has: run it with `-s`.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from models import EventType
from receiver.clock import utc_now
from receiver.settings import Settings, load_settings
from receiver.storage.database import Database
from receiver.storage.maintenance import partition_database
from receiver.storage.postgresql import partitioning
from receiver.workers.cleanup import Cleaner
from tests.fakes.databases import migrated_on
from tests.fakes.postgresql import Server, own_server
from tests.storage.rows import new_delivery, new_event, new_settlement

ROWS = 1_000_000
PURGED = 40_000
CHUNKS = 5
_BASE = """
INSERT INTO organization (uid, name, created_at) VALUES (gen_random_uuid(), 'default', now());
INSERT INTO subscription (uid, organization_id, kind, endpoint_url, format, event_types, ordered, signature, is_active,
    created_at, updated_at)
SELECT gen_random_uuid(), 1, 'registered', 'u', 'standard', '[]', false, 'v1', true, now(), now()
FROM generate_series(1, 20);
"""
# Without a check of every foreign key, which these rows have.
_CHUNK = """
SET session_replication_role = replica;
INSERT INTO task (uid, organization_id, provider, model, task_type, status, submission, attempt, max_attempts,
    backoff_seconds, progress, revision, leased, poll_count, input, output, created_at, updated_at, last_update_at)
SELECT uuidv7(now() - {at} - now()), 1, 'piapi', 'flux', 'txt2img', 'completed', 'accepted', 1, 1, 1, 100, '', false, 0,
    jsonb_build_object('prompt', repeat('a cat ', 20)), '{{"image_url": "https://img.example.com/1.png"}}',
    now() - {at}, now() - {at}, now() - {at} FROM generate_series(1, {tasks});
INSERT INTO event (uid, organization_id, task_id, type, snapshot, created_at)
SELECT uuidv7(now() - {at} - now()), 1, id, 'task.completed',
    jsonb_build_object('status', 'completed', 'attempt', 1, 'text', repeat('b', 200)), created_at
FROM (SELECT id, created_at FROM task ORDER BY id DESC LIMIT {tasks}) AS new ORDER BY id;
INSERT INTO delivery (uid, organization_id, subscription_id, event_id, task_id, status, attempt, leased, schedule_from,
    created_at, settled_at)
SELECT uuidv7(now() - {at} - now()), 1, id % 20 + 1, id, task_id, 'delivered', 1, false, 0, created_at, created_at
FROM (SELECT id, task_id, created_at FROM event ORDER BY id DESC LIMIT {tasks}) AS new ORDER BY id;
INSERT INTO delivery_attempt (delivery_id, number, started_at, duration_ms, status_code, response)
SELECT id, 1, created_at, 5, 200, 'ok' FROM (SELECT id, created_at FROM delivery ORDER BY id DESC LIMIT {tasks}) AS new
ORDER BY id;
"""
_SIZES = (
    "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r' "
    "AND relname ~ '^(event|delivery)' AND relnamespace = current_schema()::regnamespace"
)

pytestmark = pytest.mark.large("fills tables with a million rows")


def run(url: str, statements: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statements.encode())


def value(url: str, query: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchone()[0]  # type: ignore[index]


def fill(url: str, tasks: int, age_days: float) -> None:
    run(url, _CHUNK.format(tasks=tasks, at=f"interval '{age_days} days'"))


class Waits:
    """How long writes took while they went on, in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.count = 0


@asynccontextmanager
async def writing(database: Database) -> AsyncIterator[Waits]:
    """Write events, deliveries and settlements one after another; what fails ends the test."""
    waits, is_over = Waits(), asyncio.Event()

    async def write() -> None:
        while not is_over.is_set():
            began = time.monotonic()
            await _write(database)
            waits.longest = max(waits.longest, time.monotonic() - began)
            waits.count += 1

    task = asyncio.create_task(write())
    try:
        yield waits
    finally:
        is_over.set()
        await task


async def _write(database: Database) -> None:
    now = utc_now()
    event = new_event(None, type=EventType.WEBHOOK_DISABLED, snapshot={}, created_at=now)
    (event_key,) = await database.writer.run(lambda tx: tx.insert_events([event]))
    delivery = new_delivery(1, event_key, None, attempt=1, due_at=now, created_at=now)
    (key,) = await database.writer.run(lambda tx: tx.insert_deliveries([delivery]))
    done = new_settlement(key, 1, settled_at=now, started_at=now)
    assert await database.writer.run(lambda tx: tx.settle([done])) == [True]


async def new(server: Server, name: str) -> Settings:
    run(server.url(), f"CREATE DATABASE {name} TEMPLATE migrated")
    given = {"RINGBACK_DATABASE_URL": server.url(name), "RINGBACK_SECRET_KEY": "Hq7sVn2kXw9ZtCb5LrJ4"}
    return load_settings(given, env_file=None)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with own_server(autovacuum_naptime="1s", shared_buffers="128MB") as server:
        await migrated_on(server)
        run(server.url(), _BASE)
        run(server.url("template1"), "CREATE DATABASE migrated TEMPLATE postgres")
        yield server


async def test_a_million_rows_are_partitioned_while_writes_wait_for_less_than_two_seconds(server: Server) -> None:
    settings = await new(server, "whole")
    fill(settings.database_url, ROWS, 5)
    run(settings.database_url, "VACUUM ANALYZE")
    async with await Database.open(settings) as database:
        async with writing(database) as before:
            await asyncio.sleep(5)
        async with writing(database) as waits:
            began = time.monotonic()
            await partition_database(settings)
            took = time.monotonic() - began
        async with writing(database) as after:
            await asyncio.sleep(5)
    print(f"\npartitioned {ROWS:,} rows a table in {took:.1f} s; longest write {waits.longest:.2f} s")
    print(f"writes in 5 s: {before.count} before (longest {before.longest:.2f} s), {after.count} after")
    assert waits.longest < 2


async def test_a_purge_gives_the_space_of_old_partitions_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitioning, "LEAST_ROWS", PURGED)
    whole, divided = await new(server, "whole"), await new(server, "divided")
    await partition_database(divided)
    sizes: dict[str, tuple[int, int]] = {}
    for settings, name in ((whole, "whole"), (divided, "divided")):
        url = settings.database_url
        async with await Database.open(settings) as database:
            cleaner = Cleaner(database, retention_days=30)
            for number in range(CHUNKS):
                fill(url, PURGED, 40 if number == 0 else 5)
                await cleaner._keep_partitions()
            run(url, "VACUUM ANALYZE")
            before = value(url, _SIZES)
            async with writing(database) as waits:
                began = time.monotonic()
                purged = await cleaner.clean(utc_now())
                took = time.monotonic() - began
                waits.longest = 0.0
                began = time.monotonic()
                await cleaner._keep_partitions()
                dropped = time.monotonic() - began
            run(url, "VACUUM ANALYZE")
            after = value(url, _SIZES)
        sizes[name] = (before, after)
        print(
            f"\n{name}: purged {purged} in {took:.0f} s, then {dropped:.1f} s; longest write then {waits.longest:.2f} s"
        )
        print(f"  tables: {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after")
    assert sizes["divided"][1] < sizes["whole"][1] * 0.9


async def test_autovacuum_keeps_the_queue_of_deliveries_short(server: Server) -> None:
    ours, plain = await new(server, "ours"), await new(server, "plain")
    reset = "autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_analyze_scale_factor"
    run(plain.database_url, f"ALTER TABLE delivery RESET ({reset}); ALTER TABLE task RESET ({reset})")
    for settings in (ours, plain):
        fill(settings.database_url, ROWS // 4, 5)
        run(settings.database_url, "VACUUM ANALYZE")
    insert = """
    INSERT INTO delivery (uid, organization_id, subscription_id, event_id, task_id, status, attempt, leased,
        schedule_from, created_at, due_at)
    SELECT gen_random_uuid(), 1, 1, id, task_id, 'pending', 0, false, 0, now(), now() FROM event ORDER BY id LIMIT 2000
    """
    for number in range(20):
        for settings in (ours, plain):
            url = settings.database_url
            run(url, insert)
            run(url, "UPDATE delivery SET due_at = now() + interval '1 minute', leased = true WHERE due_at IS NOT NULL")
            run(url, "UPDATE delivery SET due_at = NULL, leased = false, status = 'delivered' WHERE due_at IS NOT NULL")
        await asyncio.sleep(1.0 if number < 19 else 5.0)
    found = {}
    for settings, name in ((ours, "ours"), (plain, "plain")):
        url = settings.database_url
        dead = value(url, "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'delivery'")
        index = value(url, "SELECT pg_relation_size('ix_delivery_due')")
        table = value(url, "SELECT pg_table_size('delivery')")
        hot = value(url, "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'delivery'")
        found[name] = (dead, index)
        print(f"\n{name}: {dead} dead rows, {hot} HOT updates")
        print(f"  queue index {index / 1e6:.2f} MB, table {table / 1e6:.1f} MB")
    assert found["ours"][0] < found["plain"][0] / 4
