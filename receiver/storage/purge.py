"""Deleting what is older than it is kept, children before their parents: foreign keys are on.

The file does not shrink: SQLite fills the pages that were freed first, so that it stays as large as the busiest
retention period needed. Giving them back to the disk would move pages about under the writer's lock for nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, delete, exists, or_, select, true

from models import RUN_TERMINAL, TERMINAL, DeliveryStatus, ReplayStatus, SubscriptionKind
from receiver.storage.tables import (
    deliveries,
    delivery_attempts,
    events,
    idempotency_keys,
    receipts,
    replays,
    run_steps,
    runs,
    subscriptions,
    task_attempts,
    tasks,
)
from receiver.storage.transaction import Transaction

_ENDED = sorted(TERMINAL)
_ENDED_RUNS = sorted(RUN_TERMINAL)
_NAMED_REPLAY = exists().where(deliveries.c.replay_id == replays.c.id)
_NAMED_SUBSCRIPTION = or_(
    exists().where(tasks.c.callback_id == subscriptions.c.id),
    exists().where(deliveries.c.subscription_id == subscriptions.c.id),
    exists().where(replays.c.subscription_id == subscriptions.c.id),
)


def oldest_tasks(after: int, limit: int) -> Select[Any]:
    """Return the query for a page of tasks in the order of their keys, which is that of their coming."""
    columns = (tasks.c.id, tasks.c.status, tasks.c.created_at, tasks.c.ended_at)
    return select(*columns).where(tasks.c.id > after).order_by(tasks.c.id).limit(limit)


def oldest_runs(after: int, limit: int) -> Select[Any]:
    """Return the query for a page of runs in the order of their keys, which is that of their coming."""
    columns = (runs.c.id, runs.c.status, runs.c.created_at, runs.c.ended_at)
    return select(*columns).where(runs.c.id > after).order_by(runs.c.id).limit(limit)


def oldest_taskless_events(after: int, before: datetime, limit: int) -> Select[Any]:
    """Return the query for a page of old events of neither a task nor a run, oldest first."""
    of_neither = and_(events.c.task_id.is_(None), events.c.run_uid.is_(None))
    old = and_(of_neither, events.c.created_at < before, events.c.id > after)
    return select(events.c.id).where(old).order_by(events.c.id).limit(limit)


def old_receipts(before: datetime, limit: int) -> Select[Any]:
    """Return the query for receipts from before a moment."""
    return select(receipts.c.id).where(receipts.c.received_at < before).order_by(receipts.c.received_at).limit(limit)


def old_idempotency_keys(before: datetime, limit: int) -> Select[Any]:
    """Return the query for idempotency keys that were first used before a moment."""
    created_at = idempotency_keys.c.created_at
    return select(idempotency_keys.c.id).where(created_at < before).order_by(created_at).limit(limit)


def old_replays(before: datetime, limit: int) -> Select[Any]:
    """Return the query for replays that ended before a moment and whose deliveries are gone."""
    old = and_(replays.c.status != ReplayStatus.RUNNING, replays.c.ended_at < before)
    return select(replays.c.id).where(old, ~_NAMED_REPLAY).limit(limit)


def old_subscriptions(before: datetime, limit: int) -> Select[Any]:
    """Return the query for clients' own callbacks, and removed webhooks, that nothing names any more."""
    callback = and_(subscriptions.c.kind == SubscriptionKind.CALLBACK, subscriptions.c.created_at < before)
    old = or_(callback, subscriptions.c.deleted_at < before)
    return select(subscriptions.c.id).where(old, ~_NAMED_SUBSCRIPTION).limit(limit)


async def purge_tasks(tx: Transaction, keys: Sequence[int], before: datetime) -> int:
    """Delete of these tasks those that ended before a moment, with all that is theirs; return how many.

    The tasks of a run stay until it too ended before then: it names them.
    """
    waits = exists().where(deliveries.c.task_id == tasks.c.id, deliveries.c.status == DeliveryStatus.PENDING)
    is_over = and_(tasks.c.status.in_(_ENDED), tasks.c.ended_at < before)
    is_named = exists().where(runs.c.uid == tasks.c.run_uid, _is_over(before).is_not(true()))
    found = await tx.execute(select(tasks.c.id).where(tasks.c.id.in_(keys), is_over, ~waits, ~is_named))
    gone = [row.id for row in found]
    if gone:
        await _delete_deliveries(tx, deliveries.c.task_id.in_(gone))
        await tx.execute(delete(events).where(events.c.task_id.in_(gone)))
        await tx.execute(delete(task_attempts).where(task_attempts.c.task_id.in_(gone)))
        await tx.execute(delete(tasks).where(tasks.c.id.in_(gone)))
    return len(gone)


async def purge_runs(tx: Transaction, keys: Sequence[int], before: datetime) -> int:
    """Delete of these runs those that ended before a moment and whose tasks are gone, with all that is theirs.

    Return how many. They are locked: somebody may retry one just now.
    """
    has_tasks = exists().where(tasks.c.run_uid == runs.c.uid)
    waits = exists().where(
        events.c.run_uid == runs.c.uid,
        deliveries.c.event_id == events.c.id,
        deliveries.c.status == DeliveryStatus.PENDING,
    )
    wanted = select(runs.c.id, runs.c.uid).where(runs.c.id.in_(keys), _is_over(before), ~has_tasks, ~waits)
    found = await tx.execute(wanted.order_by(runs.c.id).with_for_update(of=runs))
    gone = [row.id for row in found]
    if gone:
        theirs = events.c.run_uid.in_([row.uid for row in found])
        await _delete_deliveries(tx, deliveries.c.event_id.in_(select(events.c.id).where(theirs)))
        await tx.execute(delete(events).where(theirs))
        await tx.execute(delete(run_steps).where(run_steps.c.run_id.in_(gone)))
        await tx.execute(delete(runs).where(runs.c.id.in_(gone)))
    return len(gone)


async def purge_taskless_events(tx: Transaction, keys: Sequence[int]) -> int:
    """Delete of these events of neither a task nor a run those that everybody was told of; return how many."""
    waits = exists().where(deliveries.c.event_id == events.c.id, deliveries.c.status == DeliveryStatus.PENDING)
    found = await tx.execute(select(events.c.id).where(events.c.id.in_(keys), events.c.task_id.is_(None), ~waits))
    gone = [row.id for row in found]
    if gone:
        await _delete_deliveries(tx, deliveries.c.event_id.in_(gone))
        await tx.execute(delete(events).where(events.c.id.in_(gone)))
    return len(gone)


async def purge_receipts(tx: Transaction, keys: Sequence[int]) -> int:
    """Delete these receipts; return how many."""
    await tx.execute(delete(receipts).where(receipts.c.id.in_(keys)))
    return len(keys)


async def purge_idempotency_keys(tx: Transaction, keys: Sequence[int], before: datetime) -> int:
    """Delete of these idempotency keys those that were not used anew since; return how many."""
    table = idempotency_keys.c
    return await _purge(tx, idempotency_keys, and_(table.id.in_(keys), table.created_at < before))


async def purge_replays(tx: Transaction, keys: Sequence[int]) -> int:
    """Delete of these replays those that nothing names; return how many."""
    return await _purge(tx, replays, and_(replays.c.id.in_(keys), ~_NAMED_REPLAY))


async def purge_subscriptions(tx: Transaction, keys: Sequence[int]) -> int:
    """Delete of these subscriptions those that nothing names; return how many."""
    return await _purge(tx, subscriptions, and_(subscriptions.c.id.in_(keys), ~_NAMED_SUBSCRIPTION))


def _is_over(before: datetime) -> ColumnElement[bool]:
    """Return the condition that a run ended before a moment."""
    return and_(runs.c.status.in_(_ENDED_RUNS), runs.c.ended_at < before)


async def _purge(tx: Transaction, table: Table, which: Any) -> int:
    return len(await tx.execute(delete(table).where(which).returning(table.c.id)))


async def _delete_deliveries(tx: Transaction, which: Any) -> None:
    keys = select(deliveries.c.id).where(which)
    await tx.execute(delete(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(keys)))
    await tx.execute(delete(deliveries).where(which))
