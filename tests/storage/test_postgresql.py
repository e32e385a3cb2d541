"""PostgreSQL only: conflicts with other processes, lost connections, characters that it refuses, query plans."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Select, insert, select, text, update
from sqlalchemy.dialects import postgresql

from models import Submission
from receiver.domain.ids import new_id
from receiver.errors import StorageUnavailable
from receiver.storage.database import Database
from receiver.storage.organizations import count_webhooks, is_below
from receiver.storage.postgresql import optimistic
from receiver.storage.postgresql import transaction as hot
from receiver.storage.postgresql.one_statement import Writes, key_at
from receiver.storage.postgresql.task_claims import text_of as claim_of
from receiver.storage.tables import deliveries, subscriptions, tasks
from receiver.storage.tasks import TaskFilter, task_by_id, tasks_matching
from receiver.storage.transaction import TaskChange, TaskClaim, Transaction
from tests.fakes.claims import claim_polls
from tests.fakes.databases import outside, read_only, settings_in
from tests.storage.rows import (
    NOW,
    add_organization,
    add_subscription,
    add_tasks,
    new_delivery,
    new_event,
    new_settlement,
    task_by_key,
    task_row,
)

pytestmark = pytest.mark.postgresql_only("concerns several processes, or PostgreSQL's own limits")

Work = Callable[[Transaction], Awaitable[Any]]
_END_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Database]:
    """The same database, as another process opens it."""
    async with await Database.open(settings_in(tmp_path)) as database:
        yield database


@pytest.fixture(autouse=True)
async def _organization(database: Database) -> None:
    assert await add_organization(database) == 1


def end_connections(url: str) -> None:
    """Terminate every connection, as a restart of the server would."""
    with outside(url) as server:
        server.execute(_END_OTHERS + "pg_backend_pid()")


async def test_two_transactions_in_a_deadlock_both_succeed_in_the_end(database: Database, other: Database) -> None:
    one, two = await add_tasks(database, task_row(), task_row())
    has_one, has_two = asyncio.Event(), asyncio.Event()

    def change_both(first: int, has_first: asyncio.Event, other_has: asyncio.Event, second: int, progress: int) -> Work:
        async def work(tx: Transaction) -> None:
            await tx.execute(update(tasks).where(tasks.c.id == first).values(progress=progress))
            has_first.set()
            await other_has.wait()
            await tx.execute(update(tasks).where(tasks.c.id == second).values(poll_count=progress))

        return work

    await asyncio.gather(
        database.writer.run(change_both(one, has_one, has_two, two, 5)),
        other.writer.run(change_both(two, has_two, has_one, one, 7)),
    )
    rows = [await task_by_key(database, key) for key in (one, two)]
    assert [(row["progress"], row["poll_count"]) for row in rows] == [(5, 7), (7, 5)]


async def test_of_two_transactions_that_insert_the_same_row_the_second_finds_it(
    database: Database, other: Database
) -> None:
    row = task_row(provider_task_id="pt-1")
    both_loaded = asyncio.Barrier(2)

    def adopt(uid: str) -> Work:
        loaded = False

        async def work(tx: Transaction) -> str:
            nonlocal loaded
            found = await tx.load_tasks([], [("piapi", "pt-1")])
            if not loaded:
                loaded = True
                await both_loaded.wait()
            if found:
                return next(iter(found))
            await tx.insert_tasks([{**row, "uid": uid}])
            return uid

        return work

    one, two = await asyncio.gather(database.writer.run(adopt(new_id())), other.writer.run(adopt(new_id())))
    assert one == two


async def test_loaded_tasks_are_locked_until_the_commit_and_then_read_as_committed(
    database: Database, other: Database
) -> None:
    row = task_row()
    await add_tasks(database, row)
    locked, go_on = asyncio.Event(), asyncio.Event()

    async def hold(tx: Transaction) -> None:
        await tx.load_tasks([row["uid"]])
        await tx.execute(update(tasks).values(progress=42))
        locked.set()
        await go_on.wait()

    holding = asyncio.create_task(database.writer.run(hold))
    await locked.wait()
    loading = asyncio.create_task(other.writer.run(lambda tx: tx.load_tasks([row["uid"]])))
    await asyncio.wait({loading}, timeout=0.1)
    assert not loading.done()
    go_on.set()
    await holding
    assert (await loading)[row["uid"]].progress == 42


async def test_a_claim_skips_tasks_that_another_process_is_claiming(database: Database, other: Database) -> None:
    await add_tasks(database, *(task_row(due_at=NOW, submission=Submission.ACCEPTED) for _ in range(4)))
    claimed, go_on = asyncio.Event(), asyncio.Event()

    async def claim(tx: Transaction) -> list[str]:
        polls = await tx.claim_tasks(TaskClaim(NOW, NOW.replace(hour=5), polls=2))
        found = [due.state.uid for due in polls.tasks]
        claimed.set()
        await go_on.wait()
        return found

    first = asyncio.create_task(database.writer.run(claim))
    await claimed.wait()
    second = await claim_polls(other.writer, NOW, NOW.replace(hour=5), 10)
    go_on.set()
    assert len({*await first, *(due.state.uid for due in second)}) == 4


async def test_of_two_processes_that_add_the_last_webhook_of_a_limit_one_waits_and_is_refused(
    database: Database, other: Database
) -> None:
    first_key = await add_subscription(database)
    copied = [column for column in subscriptions.c if column.name not in ("id", "uid")]
    added, go_on = asyncio.Event(), asyncio.Event()

    async def add(tx: Transaction) -> bool:
        if not await is_below(tx, 1, count_webhooks, 2):
            return False
        (row,) = await tx.execute(select(*copied).where(subscriptions.c.id == first_key))
        await tx.execute(insert(subscriptions).values({**row._mapping, "uid": new_id()}))
        added.set()
        await go_on.wait()
        return True

    first = asyncio.create_task(database.writer.run(add))
    await added.wait()
    second = asyncio.create_task(other.writer.run(add))
    await asyncio.wait({second}, timeout=0.1)
    go_on.set()
    assert [await first, await second] == [True, False]


async def test_a_broken_connection_is_replaced(database: Database, url: str) -> None:
    (key,) = await add_tasks(database, task_row())
    await database.read(select(tasks.c.id))
    end_connections(url)
    assert [row["id"] for row in await database.read(select(tasks.c.id))] == [
        key
    ]  # a read is tried again on a new connection
    await add_tasks(database, task_row())


async def test_a_transaction_whose_connection_breaks_stores_nothing(database: Database, url: str) -> None:
    async def lose_connection(tx: Transaction) -> None:
        await tx.insert_tasks([task_row()])
        end_connections(url)

    with pytest.raises(StorageUnavailable):
        await database.writer.run(lose_connection)
    assert await database.read(select(tasks.c.id)) == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_whose_answer_is_lost_is_looked_up(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    execute = asyncpg.Connection.execute

    async def commit_and_lose(self: asyncpg.Connection, query: str, *rest: Any, **options: Any) -> str:
        if query != "COMMIT":
            return str(await execute(self, query, *rest, **options))
        monkeypatch.undo()
        if when == "after":
            await execute(self, query)
        end_connections(url)
        return str(await execute(self, "SELECT 1"))

    row = task_row()
    monkeypatch.setattr(asyncpg.Connection, "execute", commit_and_lose)
    if when == "after":
        await add_tasks(database, row)
    else:
        with pytest.raises(StorageUnavailable):
            await add_tasks(database, row)
    assert len(await database.read(select(tasks.c.id))) == (1 if when == "after" else 0)


async def test_a_read_only_server_is_unavailable_until_it_accepts_writes(database: Database, url: str) -> None:
    with read_only(url):
        for _ in range(2):
            with pytest.raises(StorageUnavailable, match="try again"):
                await add_tasks(database, task_row())
        assert await database.read(select(tasks.c.id)) == []
    await add_tasks(database, task_row())


async def test_characters_that_postgresql_cannot_store_are_replaced(database: Database) -> None:
    row = task_row(model="a\x00b", input={"prompt": "c\x00d", "path": "C:\\u0000", "e\x00": 1})
    (key,) = await add_tasks(database, row)
    subscription = await add_subscription(database, description="f\x00g")
    (event,) = await database.writer.run(lambda tx: tx.insert_events([new_event(key)]))
    (delivery,) = await database.writer.run(
        lambda tx: tx.insert_deliveries([new_delivery(subscription, event, key, attempt=1)])
    )
    done = new_settlement(delivery, subscription, response="h\x00i")
    assert await database.writer.run(lambda tx: tx.settle([done])) == [True]
    stored = await task_by_key(database, key)
    assert stored["model"] == "a\ufffdb"
    assert stored["input"] == {"prompt": "c\ufffdd", "path": "C:\\u0000", "e\ufffd": 1}
    (attempt,) = await database.read(text("SELECT response FROM delivery_attempt"))
    assert attempt["response"] == "h\ufffdi"
    found = await database.read(tasks_matching(TaskFilter(organization_id=1, model="a\x00b"), 10))
    assert [row["id"] for row in found] == [key]


async def plan_of(url: str, query: str, *arguments: Any) -> str:
    """Return the plan of a query, by the statistics that the database has of its tables."""
    connection = await asyncpg.connect(url)
    try:
        return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {query}", *arguments))
    finally:
        await connection.close()


@pytest.fixture
def full(url: str, database: Database) -> str:
    """The URL of a database with 20,000 ended tasks and their deliveries, a few that are due, and fresh statistics."""
    with outside(url) as server:
        server.execute(
            "INSERT INTO task (uid, organization_id, provider, model, task_type, status, submission, attempt, "
            "max_attempts, backoff_seconds, provider_task_id, progress, revision, created_at, updated_at, "
            "last_update_at, due_at, leased, poll_count) "
            "SELECT gen_random_uuid(), 1, 'piapi', 'model-' || n % 50, 't', "
            "CASE WHEN n % 500 = 0 THEN 'pending' ELSE 'completed' END, "
            "CASE WHEN n % 1000 = 0 THEN 'waiting' ELSE 'accepted' END, 1, 1, 1, 'p' || n, 0, '', now(), "
            "now(), now(), CASE WHEN n % 500 = 0 THEN now() END, false, 0 FROM generate_series(1, 20000) AS n"
        )
        server.execute(
            "INSERT INTO event (uid, organization_id, task_id, type, snapshot, created_at) "
            "SELECT gen_random_uuid(), 1, id, 'task.completed', '{}', now() FROM task"
        )
        server.execute(
            "INSERT INTO subscription (uid, organization_id, kind, endpoint_url, format, event_types, ordered, "
            "signature, is_active, created_at, updated_at) SELECT gen_random_uuid(), 1, 'registered', 'u', 'standard', "
            "'[]', false, 'v1', true, now(), now() FROM generate_series(1, 20)"
        )
        server.execute(
            "INSERT INTO delivery (uid, organization_id, subscription_id, event_id, task_id, status, attempt, due_at, "
            "leased, schedule_from, created_at) SELECT gen_random_uuid(), 1, id % 20 + 1, id, task_id, "
            "CASE WHEN id % 500 = 0 THEN 'pending' ELSE 'delivered' END, 1, CASE WHEN id % 500 = 0 THEN now() END, "
            "false, 0, now() FROM event"
        )
        server.execute("ANALYZE")
    return url


HOT: dict[str, tuple[str, list[Any]]] = {
    "load": (hot._LOAD_TASKS, [[], ["piapi"], ["p7"]]),
    "claim polls": (claim_of(polls=True, unsent=False), [NOW, NOW, 64, 0]),
    "claim unsent": (claim_of(polls=False, unsent=True), [NOW, NOW, 64, 0, False]),
    "claim both": (claim_of(polls=True, unsent=True), [NOW, NOW, 64, 0, 64, 0, False]),
    "claim deliveries": (hot._CLAIM_DELIVERIES, [[], NOW, 100, NOW, 400, []]),
    "settle": (hot._SETTLE, [[1], [1], ["delivered"], [None], [NOW], [NOW], [1], [200], [None], [""], [1]]),
    "read": (optimistic._READ, [[], ["piapi"], ["p7"]]),
    "one statement": Writes(
        versions={1: 1, 2: 2},
        changes=[
            TaskChange(1, "pending", 1, {"progress": 7, "output": {}}),
            TaskChange(2, "pending", 1, {"progress": 7}),
        ],
        events=[new_event(1)],
        deliveries=[new_delivery(1, key_at(0), 1)],
        settlements=[new_settlement(1, 1)],
    ).statement(set()),
    "one statement of one row": Writes(
        versions={1: 1},
        changes=[TaskChange(1, "pending", 1, {"progress": 7, "output": {}})],
        events=[new_event(1)],
        deliveries=[new_delivery(1, key_at(0), 1)],
        settlements=[new_settlement(1, 1)],
    ).statement(set()),
}


QUERIES: dict[str, Select[Any]] = {
    "page": tasks_matching(TaskFilter(organization_id=1, status="completed", model="model-7"), 50),
    "lookup": task_by_id(1, new_id()),
    "lookup by the provider's id": task_by_id(1, "p77"),
    "deliveries of a task": select(deliveries).where(deliveries.c.task_id == 7),
}


def compiled(queries: dict[str, Select[Any]]) -> dict[str, tuple[str, list[Any]]]:
    """Return queries as text, each with no arguments."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    return {
        name: (str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})).replace("%%", "%"), [])
        for name, query in queries.items()
    }


async def test_no_hot_statement_and_no_query_of_the_api_scans_a_whole_table(full: str) -> None:
    for name, (query, arguments) in {**HOT, **compiled(QUERIES)}.items():
        plan = await plan_of(full, query, *arguments)
        for table in ("task", "delivery", "event"):
            assert f"Seq Scan on {table}" not in plan, f"{name}:\n{plan}"


async def test_no_claim_scans_a_whole_table_while_all_of_it_is_due(full: str) -> None:
    with outside(full) as server:
        overdue = "status = 'pending', due_at = timestamptz '2026-01-01 00:00Z' + id * interval '1 second'"
        server.execute(f"UPDATE task SET {overdue}, submission = 'accepted'")
        server.execute(f"UPDATE delivery SET {overdue}, subscription_id = 1")
        server.execute("ANALYZE")
    for name in ("claim polls", "claim both", "claim deliveries"):
        query, arguments = HOT[name]
        plan = await plan_of(full, query, *arguments)
        assert "Seq Scan on task" not in plan, f"{name}:\n{plan}"
        assert "Seq Scan on delivery" not in plan, f"{name}:\n{plan}"


async def test_the_statements_of_a_webhook_are_not_planned_each_time(database: Database) -> None:
    (key,) = await add_tasks(database, row := task_row())
    subscription = await add_subscription(database)

    async def once(tx: Transaction) -> dict[str, int]:
        await tx.load_tasks([row["uid"]], [("piapi", "pt-1")])
        await tx.update_tasks([TaskChange(key, row["status"], row["attempt"], {"progress": 7, "output": {"a": 1}})])
        (event,), _ = await tx.append_events([new_event(key)], [1], [])
        (delivery,) = await tx.insert_deliveries([new_delivery(subscription, event, key, attempt=1)])
        await tx.settle([new_settlement(delivery, subscription)])
        plans = text("SELECT statement, custom_plans FROM pg_prepared_statements WHERE custom_plans > 0")
        return {found.statement: found.custom_plans for found in await tx.execute(plans)}

    for _ in range(5):  # as often as PostgreSQL plans before it decides
        before = await database.writer.run(once)
    for _ in range(5):
        after = await database.writer.run(once)
    assert after == before
    assert len([count for count in after.values() if count == 5]) == 5
