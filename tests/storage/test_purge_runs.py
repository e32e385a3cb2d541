"""Retention of runs: a run is purged when it ended long ago and its tasks are purged, which stay as long as it does."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select

from models import RUN_TERMINAL, DeliveryStatus, EventType, RunStatus, StepStatus, TaskStatus
from receiver.domain.ids import new_id
from receiver.storage.database import Database
from receiver.storage.tables import deliveries, delivery_attempts, events, run_steps, runs, tasks
from receiver.workers import cleanup
from receiver.workers.cleanup import Cleaner
from tests.storage.rows import NOW, add_organization, add_subscription, add_tasks, new_event, task_row

DAYS = 30
BEFORE = NOW - timedelta(days=DAYS)
OLD, YOUNG = BEFORE - timedelta(microseconds=1), BEFORE
CREATED = BEFORE - timedelta(days=1)


async def add(database: Database, table: Any, **fields: Any) -> int:
    """Insert a row; return its row key."""
    statement = insert(table).values(**fields).returning(table.c.id)
    return int((await database.writer.run(lambda tx: tx.execute(statement)))[0][0])


async def add_run(
    database: Database,
    status: str,
    ended_at: datetime | None,
    *,
    deliveries_as: Sequence[DeliveryStatus] = (),
    task: dict[str, Any] | None = None,
) -> int:
    """Add a run with a step, an event with deliveries, and a task, by default one that ended long ago."""
    uid, moments = new_id(), {"created_at": CREATED, "updated_at": CREATED, "ended_at": ended_at}
    key = await add(database, runs, uid=uid, organization_id=1, status=status, **moments)
    ended = {"status": TaskStatus.COMPLETED, "ended_at": OLD, "created_at": CREATED}
    row = task_row(**{**ended, "run_uid": uid, "step": "a", **(task or {})})
    await add_tasks(database, row)
    spec = {"step": {"id": "a"}}
    await add(
        database,
        run_steps,
        run_id=key,
        position=0,
        name="a",
        status=StepStatus.COMPLETED,
        spec=spec,
        task_uid=row["uid"],
    )
    await add_event(database, uid, deliveries_as)
    return key


async def add_event(database: Database, run_uid: str, statuses: Sequence[DeliveryStatus]) -> None:
    new = new_event(None, run_uid=run_uid, type=EventType.RUN_CREATED, created_at=CREATED)
    (event_id,) = await database.writer.run(lambda tx: tx.insert_events([new]))
    for status in statuses:
        row = {"uid": new_id(), "organization_id": 1, "subscription_id": 1, "event_id": event_id}
        more = {"status": status, "attempt": 1, "leased": False, "schedule_from": 0, "created_at": CREATED}
        delivery_id = await add(database, deliveries, **row, **more)
        await add(database, delivery_attempts, delivery_id=delivery_id, number=1, started_at=NOW, duration_ms=1)


async def values_left(database: Database, column: Any) -> set[Any]:
    return {row[column.name] for row in await database.read(select(column))}


async def check_kept(database: Database, kept: set[int]) -> None:
    """Check that exactly these runs are left, each with its rows, and no row of any other."""
    assert await values_left(database, runs.c.id) == kept == await values_left(database, run_steps.c.run_id)
    uids = await values_left(database, runs.c.uid)
    assert uids == await values_left(database, tasks.c.run_uid) == await values_left(database, events.c.run_uid)


async def test_a_run_is_purged_with_its_rows_only_when_it_ended_long_ago(database: Database) -> None:
    await add_organization(database)
    await add_subscription(database)
    settled = [status for status in DeliveryStatus if status != DeliveryStatus.PENDING]
    kept, purged = set[int](), set[int]()
    for status in RunStatus:
        for ended_at in (None, OLD, YOUNG):
            key = await add_run(database, status, ended_at, deliveries_as=settled)
            (purged if status in RUN_TERMINAL and ended_at == OLD else kept).add(key)
    found = await Cleaner(database, retention_days=DAYS).clean(NOW)
    assert found == {"tasks": len(RUN_TERMINAL), "runs": len(RUN_TERMINAL)}
    await check_kept(database, kept)
    assert await values_left(database, delivery_attempts.c.delivery_id) == await values_left(database, deliveries.c.id)
    assert len(await values_left(database, deliveries.c.id)) == len(kept) * len(settled)
    assert await Cleaner(database, retention_days=DAYS).clean(NOW) == {}


@pytest.mark.parametrize(
    "kept",
    [
        {"deliveries_as": [DeliveryStatus.DELIVERED, DeliveryStatus.PENDING]},
        {"task": {"status": TaskStatus.PROCESSING, "ended_at": None}},
        {"task": {"ended_at": YOUNG}},
    ],
    ids=["a-delivery-is-pending", "its-task-has-not-ended", "its-task-ended-lately"],
)
async def test_a_run_is_kept_while_something_of_it_is(database: Database, kept: dict[str, Any]) -> None:
    await add_organization(database)
    await add_subscription(database)
    key = await add_run(database, RunStatus.CANCELLED, OLD, **kept)
    await Cleaner(database, retention_days=DAYS).clean(NOW)
    assert await values_left(database, runs.c.id) == {key} == await values_left(database, run_steps.c.run_id)
    assert len(await values_left(database, events.c.id)) == 1


async def test_a_task_whose_run_is_purged_is_purged_like_any_other(database: Database) -> None:
    await add_organization(database)
    ended: dict[str, Any] = {"status": TaskStatus.FAILED, "ended_at": OLD, "created_at": CREATED}
    await add_tasks(database, task_row(**ended, run_uid=new_id(), step="a"))
    assert await Cleaner(database, retention_days=DAYS).clean(NOW) == {"tasks": 1}


async def test_no_old_run_is_missed_whatever_the_page_size(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "_PAGE", 3)
    monkeypatch.setattr(cleanup, "RUNS_AT_ONCE", 2)
    await add_organization(database)
    kept = set[int]()
    for number in range(10):
        key = await add_run(database, *((RunStatus.FAILED, OLD) if number % 4 else (RunStatus.PENDING, None)))
        kept |= set() if number % 4 else {key}
    assert await Cleaner(database, retention_days=DAYS).clean(NOW) == {"tasks": 7, "runs": 7}
    await check_kept(database, kept)
