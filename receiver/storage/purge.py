"""Deletes rows that are older than the retention, children before their parents, because foreign keys are checked.

The keys were read before, so each purge checks again in the writer's transaction that a row may go. Only receipts need
no check, because they never change.

A SQLite file does not shrink by this: SQLite reuses the free pages first, so that the file stays as large as the
busiest retention period needed. Returning pages to the disk would move others under the writer's lock, for no gain.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, bindparam, delete, exists, func, or_, select, true, update

from models import RUN_TERMINAL, TERMINAL, BulkActionStatus, DeliveryStatus, ReplayStatus, SubscriptionKind
from receiver.domain.ids import first_id_at
from receiver.storage.tables import (
    bulk_actions,
    deliveries,
    delivery_attempts,
    events,
    fan_outs,
    idempotency_keys,
    organizations,
    receipts,
    replays,
    run_steps,
    runs,
    subscriptions,
    task_attempts,
    task_metadata_values,
    tasks,
)
from receiver.storage.transaction import Transaction

_TERMINAL = sorted(TERMINAL)
_RUN_TERMINAL = sorted(RUN_TERMINAL)
_IS_REPLAY_IN_USE = exists().where(deliveries.c.replay_id == replays.c.id)
_IS_SUBSCRIPTION_IN_USE = or_(
    exists().where(tasks.c.callback_id == subscriptions.c.id),
    exists().where(deliveries.c.subscription_id == subscriptions.c.id),
    exists().where(replays.c.subscription_id == subscriptions.c.id),
)

_MARK_PURGED = (
    update(organizations)
    .where(
        organizations.c.id == bindparam("key"),
        func.coalesce(organizations.c.purged_event, 0) < bindparam("newest"),
    )
    .values(purged_event=bindparam("newest"))
)


def an_event_between(first: datetime, last: datetime) -> Select[Any]:
    """Return the query for one event whose id was made between two times, found by the index on ids."""
    is_between = and_(events.c.uid >= first_id_at(first), events.c.uid < first_id_at(last))
    return select(events.c.id).where(is_between).limit(1)


def oldest_tasks(after: int, limit: int) -> Select[Any]:
    """Return the query for a page of tasks in the order of their row keys, which is the order of insertion."""
    # `updated_at` of a task that has ended is its end by our own clock; `ended_at` is by the provider's.
    columns = (tasks.c.id, tasks.c.status, tasks.c.created_at, tasks.c.updated_at.label("ended_at"))
    return select(*columns).where(tasks.c.id > after).order_by(tasks.c.id).limit(limit)


def oldest_runs(after: int, limit: int) -> Select[Any]:
    """Return the query for a page of runs in the order of their row keys, which is the order of insertion."""
    columns = (runs.c.id, runs.c.status, runs.c.created_at, runs.c.ended_at)
    return select(*columns).where(runs.c.id > after).order_by(runs.c.id).limit(limit)


def oldest_taskless_events(after: int, before: datetime, limit: int) -> Select[Any]:
    """Return the query for a page of old events that belong to neither a task nor a run, oldest first."""
    is_alone = and_(events.c.task_id.is_(None), events.c.run_uid.is_(None))
    is_old = and_(is_alone, events.c.created_at < before, events.c.id > after)
    return select(events.c.id).where(is_old).order_by(events.c.id).limit(limit)


def old_receipts(before: datetime, limit: int) -> Select[Any]:
    """Return the query for receipts that were received before a time."""
    return select(receipts.c.id).where(receipts.c.received_at < before).order_by(receipts.c.received_at).limit(limit)


def old_idempotency_keys(before: datetime, limit: int) -> Select[Any]:
    """Return the query for idempotency keys that were first used before a time."""
    created_at = idempotency_keys.c.created_at
    return select(idempotency_keys.c.id).where(created_at < before).order_by(created_at).limit(limit)


def old_replays(before: datetime, limit: int) -> Select[Any]:
    """Return the query for replays that ended before a time and whose deliveries are purged."""
    is_old = and_(replays.c.status != ReplayStatus.RUNNING, replays.c.ended_at < before)
    return select(replays.c.id).where(is_old, ~_IS_REPLAY_IN_USE).limit(limit)


def old_bulk_actions(before: datetime, limit: int) -> Select[Any]:
    """Return the query for bulk actions that ended before a time."""
    is_old = and_(bulk_actions.c.status != BulkActionStatus.RUNNING, bulk_actions.c.ended_at < before)
    return select(bulk_actions.c.id).where(is_old).limit(limit)


def old_subscriptions(before: datetime, limit: int) -> Select[Any]:
    """Return the query for old callbacks of clients, and removed webhooks, that no row refers to any more."""
    is_old_callback = and_(subscriptions.c.kind == SubscriptionKind.CALLBACK, subscriptions.c.created_at < before)
    is_old = or_(is_old_callback, subscriptions.c.deleted_at < before)
    return select(subscriptions.c.id).where(is_old, ~_IS_SUBSCRIPTION_IN_USE).limit(limit)


async def purge_tasks(tx: Transaction, keys: Sequence[int], before: datetime) -> int:
    """Delete those of these tasks that ended before a time, with their deliveries, events and attempts.

    Return how many. A task with a delivery that is pending, or is still to be written, stays, and so does the task of a
    run that has not ended before that time: the run's steps refer to it.
    """
    has_pending = exists().where(deliveries.c.task_id == tasks.c.id, deliveries.c.status == DeliveryStatus.PENDING)
    is_over = and_(tasks.c.status.in_(_TERMINAL), tasks.c.updated_at < before)
    run_is_kept = exists().where(runs.c.uid == tasks.c.run_uid, _run_is_over(before).is_not(true()))
    has_fan_out = exists().where(fan_outs.c.task_id == tasks.c.id)
    is_gone = and_(is_over, ~has_pending, ~has_fan_out, ~run_is_kept)
    found = await tx.execute(select(tasks.c.id).where(tasks.c.id.in_(keys), is_gone))
    gone = [row.id for row in found]
    if gone:
        await _delete_deliveries(tx, deliveries.c.task_id.in_(gone))
        await _delete_events(tx, events.c.task_id.in_(gone))
        await tx.execute(delete(task_attempts).where(task_attempts.c.task_id.in_(gone)))
        await tx.execute(delete(task_metadata_values).where(task_metadata_values.c.task_id.in_(gone)))
        await tx.execute(delete(tasks).where(tasks.c.id.in_(gone)))
    return len(gone)


async def purge_runs(tx: Transaction, keys: Sequence[int], before: datetime) -> int:
    """Delete those of these runs that ended before a time and whose tasks are purged, with their steps and events.

    Return how many. The runs are locked, because a client may retry one at this moment.
    """
    has_tasks = exists().where(tasks.c.run_uid == runs.c.uid)
    has_pending = exists().where(
        events.c.run_uid == runs.c.uid,
        deliveries.c.event_id == events.c.id,
        deliveries.c.status == DeliveryStatus.PENDING,
    )
    has_fan_out = exists().where(events.c.run_uid == runs.c.uid, fan_outs.c.event_id == events.c.id)
    is_gone = and_(_run_is_over(before), ~has_tasks, ~has_pending, ~has_fan_out)
    wanted = select(runs.c.id, runs.c.uid).where(runs.c.id.in_(keys), is_gone)
    found = await tx.execute(wanted.order_by(runs.c.id).with_for_update(of=runs))
    gone = [row.id for row in found]
    if gone:
        of_runs = events.c.run_uid.in_([row.uid for row in found])
        await _delete_deliveries(tx, deliveries.c.event_id.in_(select(events.c.id).where(of_runs)))
        await _delete_events(tx, of_runs)
        await tx.execute(delete(run_steps).where(run_steps.c.run_id.in_(gone)))
        await tx.execute(delete(runs).where(runs.c.id.in_(gone)))
    return len(gone)


async def purge_taskless_events(tx: Transaction, keys: Sequence[int]) -> int:
    """Delete those of these events of neither a task nor a run that have no pending delivery; return how many."""
    has_pending = exists().where(deliveries.c.event_id == events.c.id, deliveries.c.status == DeliveryStatus.PENDING)
    has_fan_out = exists().where(fan_outs.c.event_id == events.c.id)
    is_gone = and_(events.c.task_id.is_(None), ~has_pending, ~has_fan_out)
    found = await tx.execute(select(events.c.id).where(events.c.id.in_(keys), is_gone))
    gone = [row.id for row in found]
    if gone:
        await _delete_deliveries(tx, deliveries.c.event_id.in_(gone))
        await _delete_events(tx, events.c.id.in_(gone))
    return len(gone)


async def purge_receipts(tx: Transaction, keys: Sequence[int]) -> int:
    """Delete these receipts; return how many."""
    await tx.execute(delete(receipts).where(receipts.c.id.in_(keys)))
    return len(keys)


async def purge_idempotency_keys(tx: Transaction, keys: Sequence[int], before: datetime) -> int:
    """Delete those of these idempotency keys that did not start over since; return how many."""
    table = idempotency_keys.c
    return await _purge(tx, idempotency_keys, and_(table.id.in_(keys), table.created_at < before))


async def purge_replays(tx: Transaction, keys: Sequence[int]) -> int:
    """Delete those of these replays that no delivery refers to; return how many."""
    return await _purge(tx, replays, and_(replays.c.id.in_(keys), ~_IS_REPLAY_IN_USE))


async def purge_bulk_actions(tx: Transaction, keys: Sequence[int]) -> int:
    """Delete these bulk actions; return how many."""
    return await _purge(tx, bulk_actions, bulk_actions.c.id.in_(keys))


async def purge_subscriptions(tx: Transaction, keys: Sequence[int]) -> int:
    """Delete those of these subscriptions that no row refers to; return how many."""
    return await _purge(tx, subscriptions, and_(subscriptions.c.id.in_(keys), ~_IS_SUBSCRIPTION_IN_USE))


def _run_is_over(before: datetime) -> ColumnElement[bool]:
    """Return the condition that a run ended before a time."""
    return and_(runs.c.status.in_(_RUN_TERMINAL), runs.c.ended_at < before)


async def _purge(tx: Transaction, table: Table, condition: Any) -> int:
    return len(await tx.execute(delete(table).where(condition).returning(table.c.id)))


async def _delete_deliveries(tx: Transaction, condition: Any) -> None:
    keys = select(deliveries.c.id).where(condition)
    await tx.execute(delete(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(keys)))
    await tx.execute(delete(deliveries).where(condition))


async def _delete_events(tx: Transaction, condition: ColumnElement[bool]) -> None:
    """Delete events, and note for each organization how far its events are purged."""
    newest = select(events.c.organization_id, func.max(events.c.id).label("newest")).where(condition)
    found = await tx.execute(newest.group_by(events.c.organization_id).order_by(events.c.organization_id))
    if found:
        marks = [{"key": row.organization_id, "newest": row.newest} for row in found]
        await tx.execute(_MARK_PURGED, marks)
    await tx.execute(delete(events).where(condition))
