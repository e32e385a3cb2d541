"""The sums say what a slow count of the rows says, however often and by whom the logs are counted."""

import asyncio
import random
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from models import DeliveryStatus, EventType, StatisticStep, SubscriptionKind, TaskStatus
from receiver.clock import utc_now
from receiver.domain.decisions import ENDING
from receiver.domain.histograms import bucket_of, merged, percentile
from receiver.domain.ids import new_id
from receiver.domain.representations import iso
from receiver.domain.time_steps import start_of
from receiver.reporting.statistics import StatisticRange, Statistics
from receiver.storage.database import Database
from receiver.storage.statistics.sums import MINUTES_KEPT
from receiver.storage.tables import (
    deliveries,
    delivery_attempts,
    delivery_statistics,
    events,
    statistic_positions,
    subscriptions,
    task_metadata_values,
    task_statistics,
    tasks,
)
from receiver.workers.cleanup import Cleaner
from receiver.workers.statistics import StatisticsWorker
from tests.fakes.databases import settings_in
from tests.storage.rows import (
    add_organization,
    add_subscription,
    add_tasks,
    new_delivery,
    new_event,
    new_settlement,
    task_row,
)

Sums = dict[tuple[Any, ...], dict[str, Any]]
NOW = utc_now().replace(microsecond=0)
SOURCES = ("webhook", "poll", "submit", "ringback")


class History:
    """Makes what happens to tasks and deliveries, at random."""

    def __init__(self, database: Database, seed: int) -> None:
        self.database = database
        self.rng = random.Random(seed)
        self.open: list[dict[str, Any]] = []
        self.failed: list[tuple[dict[str, Any], str]] = []
        self.webhooks: list[tuple[int, str]] = []

    async def begin(self) -> None:
        for name in ("default", "other"):
            await add_organization(self.database, name)
        for kind in (SubscriptionKind.REGISTERED, SubscriptionKind.REGISTERED, SubscriptionKind.CALLBACK):
            uid = new_id()
            self.webhooks.append((await add_subscription(self.database, uid=uid, kind=kind), uid))

    def moment(self) -> datetime:
        """Return a time of the last three days in whole seconds, not near to when sums of minutes are too old."""
        hours = self.rng.choice((self.rng.random() / 6, self.rng.uniform(0, 47), self.rng.uniform(50, 72)))
        return NOW - timedelta(seconds=int(hours * 3600))

    async def event(self, task: dict[str, Any] | None, at: datetime, event_type: str, **snapshot: Any) -> str:
        uid = new_id()
        fields = {"organization_id": task["organization_id"] if task else 1, "type": event_type, "created_at": at}
        event = new_event(task["id"] if task else None, uid=uid, snapshot=snapshot, **fields)
        await self.database.writer.run(lambda tx: tx.insert_events([event]))
        return uid

    async def create(self) -> None:
        model, organization_id, at = self.rng.choice("abc"), self.rng.choice((1, 2)), self.moment()
        row = task_row(model=model, organization_id=organization_id, created_at=at)
        (key,) = await add_tasks(self.database, row)
        self.open.append({**row, "id": key})
        await self.event(self.open[-1], at, EventType.TASK_CREATED, status="queued")

    async def end(self) -> None:
        if not self.open:
            return
        task = self.open.pop(self.rng.randrange(len(self.open)))
        at = task["created_at"] + timedelta(seconds=self.rng.choice((0, 1, 59, 3600, 90000)))
        status = self.rng.choice(list(ENDING))
        uid = await self.event(task, at, ENDING[status], status=status, source=self.rng.choice(SOURCES))
        if status == TaskStatus.FAILED:
            self.failed.append((task, uid))

    async def correct(self) -> None:
        if self.failed:
            task, uid = self.failed.pop(self.rng.randrange(len(self.failed)))
            snapshot = {"status": "completed", "source": self.rng.choice(SOURCES), "corrects": uid}
            await self.event(task, self.moment(), EventType.TASK_COMPLETED, **snapshot)

    async def progress(self) -> None:
        for task in self.open[:1]:
            await self.event(task, self.moment(), EventType.TASK_UPDATED, status="processing", source="webhook")

    async def deliver(self) -> None:
        if not self.open:
            return
        task, (webhook, uid) = self.open[-1], self.rng.choice(self.webhooks)
        event = new_event(task["id"], created_at=self.moment())
        (event_key,) = await self.database.writer.run(lambda tx: tx.insert_events([event]))
        row = new_delivery(webhook, event_key, task["id"], attempt=1)
        (key,) = await self.database.writer.run(lambda tx: tx.insert_deliveries([row]))
        code = self.rng.choice((200, 204, 302, 500, None))
        status = DeliveryStatus.DELIVERED if code in (200, 204) else DeliveryStatus.DEAD
        took = self.rng.choice((0, 31, 32, 33, 1000, 15999, 3_000_000_000 // 2))
        settlement = new_settlement(
            key, webhook, status=status, status_code=code, started_at=self.moment(), duration_ms=took
        )
        await self.database.writer.run(lambda tx: tx.settle([settlement]))
        if status == DeliveryStatus.DEAD:
            shown = uid if webhook != self.webhooks[-1][0] else None
            await self.event(None, self.moment(), EventType.DELIVERY_DEAD, delivery={"webhook_id": shown})


async def counted(database: Database) -> tuple[Sums, Sums]:
    """Return what a count of all rows says, by the keys of the tables of sums."""
    of_tasks: defaultdict[Any, Counter[Any]] = defaultdict(Counter)
    query = select(events, tasks.c.provider, tasks.c.model, tasks.c.created_at.label("task_created_at"))
    rows = await database.read(query.join(tasks, tasks.c.id == events.c.task_id))
    corrected = {row["snapshot"].get("corrects") for row in rows}
    ends = {event: status.value for status, event in ENDING.items()}
    for row in rows:
        for step in StatisticStep:
            at = start_of(step, row["created_at"])
            for whose in ((row["provider"], row["model"]), ("", "")):
                sums = of_tasks[row["organization_id"], step, at, *whose]
                if row["type"] == EventType.TASK_CREATED:
                    sums["created"] += 1
                elif row["type"] in ends and row["uid"] not in corrected:
                    sums[ends[row["type"]]] += 1
                    sums[f"by_{row['snapshot']['source']}"] += 1
                    if row["type"] == EventType.TASK_COMPLETED:
                        took = row["created_at"] - row["task_created_at"]
                        sums[bucket_of(round(took.total_seconds() * 1000))] += 1
    return _plain(of_tasks, "durations"), await _counted_deliveries(database)


async def _counted_deliveries(database: Database) -> Sums:
    found: defaultdict[Any, Counter[Any]] = defaultdict(Counter)
    keys = {row["uid"]: row["id"] for row in await database.read(select(subscriptions.c.uid, subscriptions.c.id))}
    query = select(delivery_attempts, deliveries.c.subscription_id, deliveries.c.organization_id, subscriptions.c.kind)
    query = query.join(deliveries, deliveries.c.id == delivery_attempts.c.delivery_id)
    for row in await database.read(query.join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)):
        own = {row["subscription_id"]} if row["kind"] == SubscriptionKind.REGISTERED else set()
        for step in StatisticStep:
            for key in {0} | own:
                sums = found[row["organization_id"], step, key, start_of(step, row["started_at"])]
                sums["attempts"] += 1
                sums["delivered"] += row["status_code"] in (200, 204)
                if row["status_code"] is not None:
                    sums[bucket_of(row["duration_ms"])] += 1
    for row in await database.read(select(events).where(events.c.type == EventType.DELIVERY_DEAD)):
        webhook = row["snapshot"]["delivery"]["webhook_id"]
        for step in StatisticStep:
            for key in {0, keys.get(webhook, 0)}:
                found[row["organization_id"], step, key, start_of(step, row["created_at"])]["dead"] += 1
    return _plain(found, "latencies")


def _plain(sums: dict[Any, Counter[Any]], histogram: str) -> Sums:
    """Return sums without zeros and without the minutes that are not kept."""
    oldest = utc_now() - MINUTES_KEPT
    found: Sums = {}
    for key, numbers in sums.items():
        at = next(part for part in key if isinstance(part, datetime))
        buckets = {str(name): number for name, number in numbers.items() if isinstance(name, int) and number}
        ways = {name for name in numbers if str(name).startswith("by_") and name not in ("by_webhook", "by_poll")}
        row = {name: n for name, n in numbers.items() if isinstance(name, str) and n and name not in ways}
        if (StatisticStep.MINUTE not in key or at >= oldest) and (row or buckets):
            found[key] = {**row, histogram: buckets}
    return found


async def stored(database: Database) -> tuple[Sums, Sums]:
    """Return the sums that are stored, without zeros."""
    found: list[Sums] = []
    for table in (task_statistics, delivery_statistics):
        sums: Sums = {}
        for row in await database.read(select(table)):
            key = tuple(row[column.name] for column in table.primary_key)
            rest = {name: value for name, value in row.items() if name not in table.primary_key and value}
            if rest:
                histogram = "durations" if table is task_statistics else "latencies"
                sums[key] = {histogram: {}, **rest}
        found.append(sums)
    return found[0], found[1]


@pytest.mark.parametrize("seed", range(2))
async def test_the_sums_are_what_a_count_of_the_rows_says(database: Database, seed: int) -> None:
    history = History(database, seed)
    await history.begin()
    workers = [StatisticsWorker(database, page=page) for page in (9, 30)]
    acts = (history.create, history.create, history.end, history.correct, history.progress, history.deliver)
    for _ in range(100):
        await history.rng.choice(acts)()
        if history.rng.random() < 0.1:
            await release(database)
            await asyncio.gather(*(worker.count() for worker in workers))
    await release(database)
    await workers[0].count()
    await workers[0].count()
    assert await stored(database) == await counted(database)


@pytest.mark.parametrize("model", [None, "a"])
async def test_what_is_read_of_a_range_is_the_sum_of_its_hours(database: Database, model: str | None) -> None:
    history = History(database, 5)
    await history.begin()
    for act in (history.create, history.create, history.end, history.correct, history.deliver) * 40:
        await act()
    await StatisticsWorker(database).count()
    until = start_of(StatisticStep.HOUR, NOW) + timedelta(hours=1)
    wanted = StatisticRange(StatisticStep.HOUR, until - timedelta(hours=60), until)
    found = await Statistics(database, {}, 1.0).of_organization(1, wanted, model)
    of_tasks, of_deliveries = await stored(database)
    hours = {
        (at, own_model): row
        for (organization, step, at, _, own_model), row in of_tasks.items()
        if organization == 1 and step == StatisticStep.HOUR and wanted.since <= at < until
    }
    own = {key: row for key, row in hours.items() if (key[1] == model if model else key[1])}
    for name in ("created", "completed", "failed", "cancelled", "by_webhook", "by_poll"):
        assert found["tasks"][name] == sum(row.get(name, 0) for row in own.values())
    for shown in found["tasks"]["models"]:
        histogram = merged(row["durations"] for key, row in own.items() if key[1] == shown["model"])
        median = percentile(histogram, 0.5)
        assert shown["p50_seconds"] == (None if median is None else median / 1000)
    shown_hours = {each["at"]: each["created"] for each in found["tasks"]["series"] if each["created"]}
    assert shown_hours == {
        iso(at): row["created"]
        for (at, own_model), row in hours.items()
        if own_model == (model or "") and "created" in row
    }
    attempts = {
        iso(key[-1]): row["attempts"]
        for key, row in of_deliveries.items()
        if key[:3] == (1, StatisticStep.HOUR, 0) and wanted.since <= key[-1] < until and "attempts" in row
    }
    assert {each["at"]: each["attempts"] for each in found["deliveries"]["series"] if each["attempts"]} == attempts
    assert found["deliveries"]["attempts"] == sum(attempts.values()) > 0


async def release(database: Database) -> None:
    """Let any process count, as if time had passed."""
    statement = update(statistic_positions).values(held_until=None)
    await database.writer.run(lambda tx: tx.execute(statement))


async def test_one_process_leaves_the_work_to_another_that_is_at_it(database: Database) -> None:
    history = History(database, 1)
    await history.begin()
    await history.create()
    first, second = StatisticsWorker(database), StatisticsWorker(database)
    await first.count()
    await history.create()
    await second.count()
    sums = (await stored(database))[0].items()
    days = [row["created"] for key, row in sums if key[1] == StatisticStep.DAY and not key[-1]]
    assert sum(days) == 1
    await first.count()
    assert await stored(database) == await counted(database)


@pytest.mark.postgresql_only("SQLite has one writer")
async def test_a_row_that_is_committed_late_is_counted(database: Database, tmp_path: Path) -> None:
    history, hold, written = History(database, 1), asyncio.Event(), asyncio.Event()
    await history.begin()
    await history.create()
    (task,) = history.open

    async def slowly(tx: Any) -> None:
        event = new_event(task["id"], type=EventType.TASK_CREATED, created_at=NOW)
        await tx.insert_events([event])
        written.set()
        await hold.wait()

    async with await Database.open(settings_in(tmp_path)) as other:
        late = asyncio.create_task(other.writer.run(slowly))
        await written.wait()
        await history.create()
        counting = asyncio.create_task(StatisticsWorker(database).count())
        done, _ = await asyncio.wait({counting}, timeout=0.2)
        hold.set()
        await late
        await counting
    assert not done
    assert await stored(database) == await counted(database)


async def test_attempts_are_counted_after_a_purge_has_emptied_their_table(database: Database) -> None:
    history, worker = History(database, 2), StatisticsWorker(database)
    await history.begin()
    await history.create()
    history.webhooks.pop()  # a callback is purged too
    await history.deliver()
    await history.deliver()
    await worker.count()
    ended = {"status": TaskStatus.COMPLETED, "due_at": None, "updated_at": NOW - timedelta(days=40)}
    await database.writer.run(lambda tx: tx.execute(update(tasks).values(**ended)))
    await Cleaner(database, retention_days=30).clean(utc_now())
    for table in (task_statistics, delivery_statistics):
        await database.writer.run(lambda tx, table=table: tx.execute(delete(table)))  # type: ignore[misc]
    history.open.clear()
    await history.create()
    await history.deliver()
    await worker.count()
    sums = (await stored(database))[1].items()
    days = [row.get("attempts", 0) for key, row in sums if key[1] == StatisticStep.DAY and not key[2]]
    assert sum(days) == 1


async def test_old_sums_are_purged_minutes_first(database: Database) -> None:
    history = History(database, 3)
    await history.begin()
    for days in (1, 3, 40):
        task = task_row(created_at=NOW - timedelta(days=days))
        (key,) = await add_tasks(database, task)
        await history.event({**task, "id": key}, task["created_at"], EventType.TASK_CREATED)
    await StatisticsWorker(database).count()
    cleaner = Cleaner(database, retention_days=30)
    await cleaner.clean(NOW)
    kept = [(key[1], (NOW - key[2]).days) for key in (await stored(database))[0] if key[-1]]
    assert sorted(kept) == sorted([("minute", 1), ("hour", 1), ("day", 1), ("hour", 3), ("day", 3)])
    await cleaner.clean(NOW + timedelta(days=1, hours=1))
    assert "minute" not in {key[1] for key in (await stored(database))[0]}


async def test_values_of_metadata_are_found_until_the_task_is_purged(database: Database) -> None:
    history = History(database, 4)
    await history.begin()
    metadata = {"campaign": "Spring 26", "n": 7, "deep": {"x": "y"}, "none": None, "long": "z" * 500}
    row = task_row(metadata=metadata, created_at=NOW)
    (key,) = await add_tasks(database, row)
    await history.event({**row, "id": key}, NOW, EventType.TASK_CREATED)
    await StatisticsWorker(database).count()
    values = select(task_metadata_values.c.value)
    assert {each["value"] for each in await database.read(values)} == {"spring 26", "7", "z" * 100}
    ended = {"status": TaskStatus.COMPLETED, "due_at": None, "updated_at": NOW - timedelta(days=40)}
    await database.writer.run(lambda tx: tx.execute(update(tasks).values(**ended)))
    await Cleaner(database, retention_days=30).clean(utc_now())
    assert await database.read(values) == []
