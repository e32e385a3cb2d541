"""Retention: a purge deletes exactly the rows that it should, with those that depend on them, in small batches."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import func, insert, select, update

import models
from models import (
    TERMINAL,
    BulkActionStatus,
    DeliveryStatus,
    EventType,
    ReplayKind,
    ReplayStatus,
    SubscriptionKind,
    TaskStatus,
)
from receiver.clock import AnchoredClock
from receiver.domain.ids import first_id_at, new_id
from receiver.storage.database import Database
from receiver.storage.events import kept_events
from receiver.storage.idempotency import KEPT
from receiver.storage.tables import (
    bulk_actions,
    deliveries,
    delivery_attempts,
    events,
    idempotency_keys,
    receipts,
    replays,
    subscriptions,
    task_attempts,
    tasks,
)
from receiver.workers import cleanup
from receiver.workers.cleanup import Cleaner
from tests.storage.rows import (
    NOW,
    add_organization,
    add_subscription,
    add_tasks,
    new_delivery,
    new_event,
    row_of,
    task_row,
)

DAYS = 30
BEFORE = NOW - timedelta(days=DAYS)
OLD, YOUNG = BEFORE - timedelta(microseconds=1), BEFORE
CREATED = BEFORE - timedelta(days=1)
SETTLED = [status for status in DeliveryStatus if status != DeliveryStatus.PENDING]


def cleaner(database: Database, days: int = DAYS) -> Cleaner:
    return Cleaner(database, retention_days=days)


async def add(database: Database, table: Any, **fields: Any) -> int:
    """Insert a row; return its row key."""
    statement = insert(table).values(**fields).returning(table.c.id)
    return int((await database.writer.run(lambda tx: tx.execute(statement)))[0][0])


async def keys(database: Database, table: Any) -> set[int]:
    return {row["id"] for row in await database.read(select(table.c.id))}


async def add_task(
    database: Database,
    subscription_id: int,
    statuses: Sequence[DeliveryStatus],
    replay_id: int | None = None,
    **fields: Any,
) -> int:
    """Add a task with an attempt and two events, and for the last event a delivery with an attempt in each status."""
    (task_id,) = await add_tasks(database, task_row(**{"created_at": CREATED, **fields}))
    attempt = {"number": 1, "provider": "piapi", "status": TaskStatus.FAILED, "ended_at": CREATED}
    await add(database, task_attempts, task_id=task_id, **attempt)
    new_events = [new_event(task_id, created_at=CREATED) for _ in range(2)]
    event_ids = await database.writer.run(lambda tx: tx.insert_events(new_events))
    for status in statuses:
        new = new_delivery(subscription_id, event_ids[-1], task_id, replay_id=replay_id)
        (delivery_id,) = await database.writer.run(lambda tx, new=new: tx.insert_deliveries([new]))  # type: ignore[misc]
        where = update(deliveries).where(deliveries.c.id == delivery_id)
        await database.writer.run(lambda tx, where=where, status=status: tx.execute(where.values(status=status)))  # type: ignore[misc]
        await add(database, delivery_attempts, delivery_id=delivery_id, number=1, started_at=CREATED, duration_ms=1)
    return task_id


async def check_no_orphans(database: Database) -> None:
    """Check that every row's parent exists, and that every remaining task has all of its rows."""
    remaining = await keys(database, tasks)
    assert {row["task_id"] for row in await database.read(select(events.c.task_id))} <= remaining | {None}
    assert {row["task_id"] for row in await database.read(select(deliveries.c.task_id))} <= remaining | {None}
    counts = select(events.c.task_id, func.count().label("count")).where(events.c.task_id.is_not(None))
    assert all(row["count"] == 2 for row in await database.read(counts.group_by(events.c.task_id)))
    assert {row["task_id"] for row in await database.read(select(task_attempts.c.task_id))} <= remaining
    of = {row["delivery_id"] for row in await database.read(select(delivery_attempts.c.delivery_id))}
    assert of == await keys(database, deliveries)


def is_purged(status: TaskStatus, ended_at: datetime | None, statuses: Sequence[DeliveryStatus]) -> bool:
    is_over = status in TERMINAL and ended_at is not None and ended_at < BEFORE
    return is_over and DeliveryStatus.PENDING not in statuses


DELIVERIES = [(), *((status,) for status in DeliveryStatus), (DeliveryStatus.DELIVERED, DeliveryStatus.PENDING)]


async def test_a_task_is_purged_with_its_rows_only_when_it_ended_long_ago(database: Database) -> None:
    await add_organization(database)
    subscription_id = await add_subscription(database)
    kept: set[int] = set()
    purged: set[int] = set()
    for status, ended_at, statuses in product(TaskStatus, (None, OLD, YOUNG), DELIVERIES):
        key = await add_task(database, subscription_id, statuses, status=status, ended_at=ended_at)
        (purged if is_purged(status, ended_at, statuses) else kept).add(key)
    assert len(purged) == 3 * 5 - 3
    assert await cleaner(database).clean(NOW) == {"tasks": len(purged)}
    assert await keys(database, tasks) == kept
    await check_no_orphans(database)
    assert await keys(database, subscriptions) == {subscription_id}
    assert await cleaner(database).clean(NOW) == {}


@pytest.mark.parametrize("page", [1, 3])
async def test_no_old_task_is_missed_whatever_the_page_size(
    database: Database, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(cleanup, "_PAGE", page)
    monkeypatch.setattr(cleanup, "TASKS_AT_ONCE", 2)
    monkeypatch.setattr(cleanup, "_ROWS_AT_ONCE", 2)
    await add_organization(database)
    old = {"status": TaskStatus.COMPLETED, "ended_at": OLD}
    rows = [task_row(**({"status": TaskStatus.QUEUED} if n % 4 == 0 else old), created_at=CREATED) for n in range(20)]
    keys_of_rows = await add_tasks(database, *rows, task_row(status=TaskStatus.COMPLETED, ended_at=NOW))
    assert await cleaner(database).clean(NOW) == {"tasks": 15}
    assert await keys(database, tasks) == {*keys_of_rows[:20:4], keys_of_rows[20]}


@pytest.mark.parametrize("theirs", [datetime(1970, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC), OLD, YOUNG])
async def test_the_providers_clock_purges_no_task_and_keeps_none(database: Database, theirs: datetime) -> None:
    await add_organization(database)
    ended: dict[str, Any] = {"status": TaskStatus.COMPLETED, "ended_at": theirs, "created_at": CREATED}
    kept, _ = await add_tasks(database, task_row(**ended, updated_at=YOUNG), task_row(**ended, updated_at=OLD))
    assert await cleaner(database).clean(NOW) == {"tasks": 1}
    assert await keys(database, tasks) == {kept}


async def test_events_of_no_task_are_purged_unless_a_delivery_is_pending(database: Database) -> None:
    await add_organization(database)
    subscription_id = await add_subscription(database)
    kept = set()
    for created_at, status in product((OLD, YOUNG), (None, *DeliveryStatus)):
        new = replace(new_event(0, type=EventType.WEBHOOK_DISABLED, created_at=created_at), task_id=None)
        (event_id,) = await database.writer.run(lambda tx, new=new: tx.insert_events([new]))  # type: ignore[misc]
        if status is not None:
            row = {"uid": new_id(), "organization_id": 1, "subscription_id": subscription_id, "event_id": event_id}
            more = {"status": status, "attempt": 1, "leased": False, "schedule_from": 0, "created_at": created_at}
            delivery_id = await add(database, deliveries, **row, **more)
            await add(database, delivery_attempts, delivery_id=delivery_id, number=1, started_at=NOW, duration_ms=1)
        if created_at == YOUNG or status == DeliveryStatus.PENDING:
            kept.add(event_id)
    assert await cleaner(database).clean(NOW) == {"events": 4}
    assert await keys(database, events) == kept
    await check_no_orphans(database)


async def test_an_organization_keeps_the_number_of_its_newest_purged_event(database: Database) -> None:
    ours, other = await add_organization(database), await add_organization(database, "other")

    async def purged() -> list[int | None]:
        return [(await database.read(kept_events(key)))[0]["purged"] for key in (ours, other)]

    assert await purged() == [None, None]
    kept = await add(database, events, **row_of(_event(ours, NOW)))
    gone = await add(database, events, **row_of(_event(ours, OLD)))
    await add(database, events, **row_of(_event(other, NOW)))
    assert await cleaner(database).clean(NOW) == {"events": 1}
    assert kept < gone
    assert await purged() == [gone, None]
    # What has a smaller number and is purged later does not move it back.
    await database.writer.run(lambda tx: tx.execute(update(events).values(created_at=OLD)))
    assert await cleaner(database).clean(NOW) == {"events": 2}
    assert await purged() == [gone, gone + 1]


def _event(organization_id: int, created_at: datetime) -> models.Event:
    return models.Event(
        uid=new_id(),
        organization_id=organization_id,
        type=EventType.WEBHOOK_DISABLED,
        snapshot={},
        created_at=created_at,
    )


async def test_old_receipts_are_purged(database: Database) -> None:
    given = {"provider": "piapi", "reason": "malformed", "message": "m", "body": "b"}
    for moment in (OLD, OLD, YOUNG):
        await add(database, receipts, uid=new_id(), received_at=moment, **given)
    assert await cleaner(database).clean(NOW) == {"receipts": 2}
    assert len(await keys(database, receipts)) == 1


async def test_the_clean_up_finds_whose_the_receipts_of_an_earlier_version_are(database: Database) -> None:
    default, theirs = await add_organization(database, "default"), await add_organization(database, "acme")
    task = task_row(organization_id=theirs)
    await add_tasks(database, task)
    given = {"provider": "piapi", "reason": "malformed", "message": "m", "body": "b", "received_at": YOUNG}
    of_task, of_none, of_purged = [
        await add(database, receipts, uid=new_id(), task_uid=each, **given) for each in (task["uid"], None, new_id())
    ]
    assert [await cleaner(database).find_receipt_owners() for _ in range(2)] == [2, 0]
    rows = await database.read(select(receipts.c.id, receipts.c.organization_id))
    owners = {row["id"]: row["organization_id"] for row in rows}
    assert owners == {of_task: theirs, of_none: default, of_purged: None}


async def test_a_replay_is_purged_when_it_ended_and_no_delivery_is_left(database: Database) -> None:
    await add_organization(database)
    subscription_id = await add_subscription(database)

    async def replay(status: ReplayStatus, ended_at: datetime | None) -> int:
        moments: dict[str, Any] = {"since": OLD, "until": OLD, "created_at": OLD, "ended_at": ended_at}
        row = models.Replay(
            uid=new_id(),
            organization_id=1,
            subscription_id=subscription_id,
            kind=ReplayKind.REPLAY,
            status=status,
            **moments,
        )
        return await add(database, replays, **row_of(row))

    purged = {await replay(ReplayStatus.DONE, OLD), await replay(ReplayStatus.CANCELLED, OLD)}
    with_its_task = await replay(ReplayStatus.DONE, OLD)
    in_use = await replay(ReplayStatus.DONE, OLD)
    kept = {await replay(ReplayStatus.RUNNING, None), await replay(ReplayStatus.DONE, YOUNG), in_use}
    ended: dict[str, Any] = {"status": TaskStatus.COMPLETED, "ended_at": OLD}
    await add_task(database, subscription_id, SETTLED, replay_id=with_its_task, **ended)
    await add_task(database, subscription_id, [DeliveryStatus.PENDING], replay_id=in_use, **ended)
    assert await cleaner(database).clean(NOW) == {"tasks": 1, "replays": len(purged) + 1}
    assert await keys(database, replays) == kept


async def test_a_bulk_action_is_purged_when_it_ended(database: Database) -> None:
    await add_organization(database)

    async def action(status: BulkActionStatus, ended_at: datetime | None) -> int:
        fields: dict[str, Any] = {"kind": "cancel", "status": status, "filter_": {}, "ended_at": ended_at}
        row = models.BulkAction(uid=new_id(), organization_id=1, requested_by="it", created_at=OLD, **fields)
        return await add(database, bulk_actions, **row_of(row))

    for status in (BulkActionStatus.DONE, BulkActionStatus.CANCELLED):
        await action(status, OLD)
    kept = {await action(BulkActionStatus.RUNNING, None), await action(BulkActionStatus.DONE, YOUNG)}
    assert await cleaner(database).clean(NOW) == {"bulk_actions": 2}
    assert await keys(database, bulk_actions) == kept


async def test_a_callback_is_purged_when_no_row_refers_to_it(database: Database) -> None:
    await add_organization(database)

    async def callback(**fields: Any) -> int:
        given = {"kind": SubscriptionKind.CALLBACK, "fingerprint": new_id(), "created_at": OLD}
        return await add_subscription(database, **{**given, **fields})

    alone, of_old_task = await callback(), await callback()
    of_task, of_delivery, young = await callback(), await callback(), await callback(created_at=YOUNG)
    registered = await add_subscription(database, created_at=OLD)
    removed = await add_subscription(database, deleted_at=OLD)
    just_removed = await add_subscription(database, deleted_at=YOUNG)
    ended: dict[str, Any] = {"status": TaskStatus.FAILED, "ended_at": OLD}
    await add_task(database, of_old_task, SETTLED, callback_id=of_old_task, **ended)
    await add_task(database, registered, [], callback_id=of_task)
    await add_task(database, of_delivery, [DeliveryStatus.PENDING], **ended)
    assert await cleaner(database).clean(NOW) == {"tasks": 1, "subscriptions": 3}
    assert not {alone, of_old_task, removed} & await keys(database, subscriptions)
    assert await keys(database, subscriptions) == {of_task, of_delivery, young, registered, just_removed}


@pytest.mark.parametrize("days", [0, DAYS])
async def test_idempotency_keys_are_purged_after_24_hours_whatever_the_retention(
    database: Database, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    monkeypatch.setattr(cleanup, "_ROWS_AT_ONCE", 2)
    fields = {"body": "b", "owner": new_id(), "lease_until": NOW, "status": 200, "answer": "token"}
    kept = set()
    for number, created_at in enumerate([NOW - KEPT - timedelta(microseconds=1)] * 5 + [NOW - KEPT, NOW]):
        row = {"scope": str(number), "resource_id": new_id(), "created_at": created_at, **fields}
        key = await add(database, idempotency_keys, **row)
        kept |= {key} if number >= 5 else set()
    assert await cleaner(database, days).clean(NOW) == {"idempotency_keys": 5}
    assert await keys(database, idempotency_keys) == kept


async def test_a_retention_of_0_keeps_everything(database: Database) -> None:
    await add_organization(database)
    await add_tasks(database, task_row(status=TaskStatus.COMPLETED, ended_at=OLD, created_at=OLD))
    running = asyncio.create_task(Cleaner(database, retention_days=0, first_seconds=0, every_seconds=0).run())
    for _ in range(20):
        await database.writer.run(lambda tx: tx.execute(select(1)))
    running.cancel()
    assert len(await keys(database, tasks)) == 1


async def test_the_cleaner_runs_soon_after_the_start_and_then_repeatedly(database: Database) -> None:
    await add_organization(database)
    ended: dict[str, Any] = {"status": TaskStatus.COMPLETED, "ended_at": OLD, "created_at": OLD}
    often = Cleaner(database, retention_days=DAYS, first_seconds=0, every_seconds=0.01, clock=steady(days=1))
    running = asyncio.create_task(often.run())
    async with asyncio.timeout(10):
        for _ in range(2):
            await add_tasks(database, task_row(**ended))
            while await keys(database, tasks):
                await database.writer.run(lambda tx: tx.execute(select(1)))
    running.cancel()


async def test_nothing_is_purged_by_a_clock_that_nothing_shows_to_be_right(database: Database) -> None:
    """A start a year after the last event: the service was off for a year, or its clock is a year ahead."""
    young = Cleaner(database, retention_days=DAYS, clock=steady(hours=23))
    assert not await young.is_time_trusted(NOW)
    await add_organization(database)
    for age, trusted in (({"days": 365}, False), ({"hours": 2}, False), ({"hours": 30}, True)):
        await add_event_of_age(database, timedelta(**age))
        assert await young.is_time_trusted(NOW) is trusted
    assert not await young.is_time_trusted(NOW + timedelta(days=365))
    old = Cleaner(database, retention_days=DAYS, clock=steady(hours=24))
    assert await old.is_time_trusted(NOW + timedelta(days=365))


def steady(**since: float) -> AnchoredClock:
    """Return a clock that was set so long ago."""
    seconds = iter([0.0])
    return AnchoredClock(0.0, lambda: next(seconds, timedelta(**since).total_seconds()))


async def add_event_of_age(database: Database, age: timedelta) -> None:
    event = new_event(None, uid=first_id_at(NOW - age), created_at=NOW - age)
    await database.writer.run(lambda tx: tx.insert_events([event]))


async def test_many_tasks_are_purged_in_small_batches_with_other_writes_in_between(database: Database) -> None:
    await add_organization(database)
    ended: dict[str, Any] = {"status": TaskStatus.COMPLETED, "ended_at": OLD, "created_at": OLD}
    await add_tasks(database, *(task_row(**ended) for _ in range(1000)))
    left: list[int] = []

    async def others() -> None:
        while not left or left[-1]:
            found = await database.writer.run(lambda tx: tx.execute(select(func.count()).select_from(tasks)))
            left.append(int(found[0][0]))

    async with asyncio.TaskGroup() as group:
        group.create_task(others())
        group.create_task(cleaner(database).clean(NOW))
    assert len(left) >= 1000 // cleanup.TASKS_AT_ONCE
    assert all(before - after <= cleanup.TASKS_AT_ONCE for before, after in pairwise(left))
