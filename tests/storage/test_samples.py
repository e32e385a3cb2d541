"""What the gauges show of the database, and that the queries for it read few rows."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import insert, text

import models
from models import DisabledReason, EventType, RunStatus, Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.storage import samples
from receiver.storage.database import Database
from receiver.storage.installation import LAST_BACKUP
from receiver.storage.tables import installation_facts, runs
from receiver.workers.sampler import Sampler
from tests.storage.rows import (
    add_organization,
    add_subscription,
    add_subscriptions,
    add_tasks,
    new_delivery,
    new_event,
    row_of,
    task_row,
)


class Unpaused:
    def paused_for(self) -> float:
        return 0.0


async def ready() -> str | None:
    return None


def sampler_of(database: Database, folder: Path, shared: Path | None = None) -> Sampler:
    file = None if database.shared else folder / "none.db"
    return Sampler(database, {"piapi": Unpaused()}, ready, file=file, shared=shared)


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"ringback_{name}", labels)


async def add_deliveries(database: Database, subscription: int, task: int, *ages: float) -> None:
    """Insert deliveries of one task that are due for these seconds; a negative age is due later."""
    (event,) = await database.writer.run(lambda tx: tx.insert_events([new_event(task, type=EventType.TASK_CREATED)]))
    due = [utc_now() - timedelta(seconds=age) for age in ages]
    rows = [new_delivery(subscription, event, task, due_at=at) for at in due]
    await database.writer.run(lambda tx: tx.insert_deliveries(rows))


async def test_the_gauges_show_what_is_due_how_late_it_is_and_what_has_not_ended(
    database: Database, tmp_path: Path
) -> None:
    now = utc_now()
    organizations = [await add_organization(database, name) for name in ("default", "other")]
    fields: list[dict[str, Any]] = [
        {"due_at": now - timedelta(seconds=300)},
        {"due_at": now - timedelta(seconds=5), "bulk": True},
        {"due_at": now - timedelta(seconds=120), "status": TaskStatus.PENDING, "submission": Submission.ACCEPTED},
        {"due_at": now + timedelta(seconds=90), "status": TaskStatus.PENDING, "submission": Submission.ACCEPTED},
        {"due_at": None, "status": TaskStatus.COMPLETED, "submission": Submission.ACCEPTED},
    ]
    rows = [task_row(organization_id=each, **given) for each in organizations for given in fields]
    task = (await add_tasks(database, *rows))[0]
    free = await add_subscription(database)
    ordered = await add_subscription(database, ordered=True)
    await add_deliveries(database, free, task, 500, 1, -60)
    await add_deliveries(database, ordered, task, -3600, 900)  # the second waits for the first
    await add_subscriptions(database, 2, is_active=False, disabled_reason=DisabledReason.GONE)
    await add_subscriptions(database, 1, is_active=False)  # by its owner
    await add_subscriptions(database, 3, failing_since=now)
    states = (RunStatus.PENDING, RunStatus.IN_PROGRESS, RunStatus.COMPLETED)
    run_rows = [
        row_of(models.Run(uid=new_id(), organization_id=1, status=each, created_at=now, updated_at=now))
        for each in states
    ]
    await database.writer.run(lambda tx: tx.execute(insert(runs), run_rows))
    await sampler_of(database, tmp_path).sample()
    assert [value("tasks_due", action=each) for each in ("send", "poll")] == [4, 2]
    assert [value("tasks_overdue", action=each) for each in ("send", "poll")] == [2, 2]
    assert 300 <= (value("tasks_oldest_due_seconds", action="send") or 0) < 400
    assert 120 <= (value("tasks_oldest_due_seconds", action="poll") or 0) < 220
    assert (value("deliveries_due"), value("deliveries_overdue")) == (2, 1)
    assert 500 <= (value("deliveries_oldest_due_seconds") or 0) < 600
    open_tasks = {each: value("tasks_open", status=each) for each in samples.OPEN_TASKS}
    assert open_tasks == {"queued": 4, "staged": 0, "pending": 4, "processing": 0}
    assert (value("runs_open"), value("webhooks_disabled"), value("webhooks_failing")) == (2, 2, 3)
    assert value("ready") == 1
    if database.shared:
        assert (value("database_size_bytes") or 0) > 0
    else:
        assert (value("disk_free_bytes") or 0) > 0


async def test_with_nothing_in_the_database_all_is_zero(database: Database, tmp_path: Path) -> None:
    await sampler_of(database, tmp_path).sample()
    assert [value("tasks_oldest_due_seconds", action=each) for each in ("send", "poll")] == [0, 0]
    assert (value("deliveries_due"), value("deliveries_oldest_due_seconds"), value("runs_open")) == (0, 0, 0)


async def test_the_time_of_the_last_backup_is_shown(database: Database, tmp_path: Path) -> None:
    noted = {"name": LAST_BACKUP, "value": '{"at": "2026-01-02T03:04:05+00:00", "bytes": 1, "seconds": 1}'}
    await database.writer.run(lambda tx: tx.execute(insert(installation_facts), [noted]))
    await sampler_of(database, tmp_path).sample()
    assert value("last_backup_timestamp_seconds") == 1767323045


async def test_of_several_workers_one_reads_the_database(database: Database, tmp_path: Path) -> None:
    first, second = (sampler_of(database, tmp_path, tmp_path) for _ in range(2))
    assert [await first.sample() > 0, await second.sample() > 0] == [True, False]
    assert await first.sample() > 0
    first.release()
    assert await second.sample() > 0
    second.release()


@pytest.mark.sqlite_only("the plan of a small table is that of a large one")
async def test_no_query_reads_a_whole_table(database: Database) -> None:
    now = utc_now()
    due = [samples.due_tasks(each) for conditions in samples.DUE_TASKS.values() for each in conditions]
    queries = [*due, samples.due_deliveries(), samples.open_tasks(), samples.open_runs(), samples.faulty_webhooks()]
    for query in queries:
        explained = text(f"EXPLAIN QUERY PLAN {query!s}")
        named = {"now": str(now), "late": str(now)} if ":now" in str(query) else {}
        plan = [row["detail"] for row in await database.read(explained, named)]
        scans = [each for each in plan if each.startswith("SCAN") and each.split()[1] in models.metadata.tables]
        assert [each for each in scans if "USING" not in each] == []
        assert any("INDEX" in each for each in plan)
