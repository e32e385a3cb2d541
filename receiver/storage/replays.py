"""Replays: what is sent again, batch by batch. The rows of a batch and the replay's cursor are one transaction."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, func, insert, select, update

from models import DeliveryStatus, ReplayStatus
from receiver.domain.ids import new_id
from receiver.storage.tables import deliveries, events, replays, runs, subscriptions, tasks
from receiver.storage.transaction import NewDelivery, Transaction, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayBatch:
    """One batch of a replay: what is put on its way, and where its cursor goes from where it was."""

    replay_id: int
    keys: Sequence[int]
    """Of events, or of deliveries for `recover`."""
    cursor_was: int
    cursor: int
    is_last: bool


def replays_of(subscription_id: int, limit: int, before: int | None) -> Select[Any]:
    """Return the query for a page of a subscription's replays, newest first."""
    query = select(replays).where(replays.c.subscription_id == subscription_id)
    query = query.order_by(replays.c.id.desc()).limit(limit)
    return query if before is None else query.where(replays.c.id < before)


def replay_by_id(subscription_id: int, uid: str) -> Select[Any]:
    """Return the query for one of a subscription's replays."""
    return select(replays).where(replays.c.subscription_id == subscription_id, replays.c.uid == uid)


def running_replays() -> Select[Any]:
    """Return the query for the replays that are not done, each with its subscription's event filter."""
    return (
        select(
            replays,
            subscriptions.c.is_active,
            subscriptions.c.deleted_at,
            subscriptions.c.filters,
        )
        .join(subscriptions, subscriptions.c.id == replays.c.subscription_id)
        .where(replays.c.status == ReplayStatus.RUNNING)
        .order_by(replays.c.id)
    )


def deliveries_by_status(replay_ids: Collection[int]) -> Select[Any]:
    """Return the query for (replay_id, status, count) of what these replays put on its way."""
    return (
        select(deliveries.c.replay_id, deliveries.c.status, func.count().label("count"))
        .where(deliveries.c.replay_id.in_(replay_ids))
        .group_by(deliveries.c.replay_id, deliveries.c.status)
    )


def pending_of(replay_id: int, most: int) -> Select[Any]:
    """Return the query that counts what of a replay is still on its way, up to `most`."""
    found = select(deliveries.c.id).where(_pending_of(replay_id)).limit(most).subquery()
    return select(func.count().label("count")).select_from(found)


def events_to_replay(
    organization_id: int,
    event_types: Collection[str],
    since: datetime,
    until: datetime,
    after: int,
    limit: int,
) -> Select[Any]:
    """Return the query for a page of events, oldest first, with what filters ask of their tasks and runs."""
    metadata = func.coalesce(tasks.c.metadata, runs.c.metadata).label("metadata")
    return (
        select(events.c.id, events.c.type, events.c.run_uid, tasks.c.model, tasks.c.task_type, metadata)
        .outerjoin(tasks, tasks.c.id == events.c.task_id)
        .outerjoin(runs, runs.c.uid == events.c.run_uid)
        .where(_in_range(organization_id, event_types, since, until), events.c.id > after)
        .order_by(events.c.id)
        .limit(limit)
    )


def count_events(
    organization_id: int, event_types: Collection[str], since: datetime, until: datetime, most: int
) -> Select[Any]:
    """Return the query that counts those events, up to `most`."""
    found = select(events.c.id).where(_in_range(organization_id, event_types, since, until)).limit(most).subquery()
    return select(func.count().label("count")).select_from(found)


def deliveries_to_recover(
    subscription_id: int, since: datetime, until: datetime, after: int, limit: int
) -> Select[Any]:
    """Return the query for a page of what was given up, oldest first."""
    given_up = _given_up(subscription_id, since, until)
    return select(deliveries.c.id).where(given_up, deliveries.c.id > after).order_by(deliveries.c.id).limit(limit)


def count_given_up(subscription_id: int, since: datetime, until: datetime, most: int) -> Select[Any]:
    """Return the query that counts it, up to `most`."""
    found = select(deliveries.c.id).where(_given_up(subscription_id, since, until)).limit(most).subquery()
    return select(func.count().label("count")).select_from(found)


async def insert_replay(tx: Transaction, values: Values) -> int:
    """Insert one replay; return its key."""
    return int((await tx.execute(insert(replays).values(**values).returning(replays.c.id)))[0][0])


async def send_events(tx: Transaction, step: ReplayBatch, now: datetime) -> int:
    """Insert a delivery for each event of the step that is still there; return how many were put on their way.

    None are if the replay is not where the step began: cancelled, or somebody else was first.
    """
    rows = await tx.execute(
        select(events.c.id, events.c.task_id).where(events.c.id.in_(step.keys)).order_by(events.c.id)
    )
    replay = await _move(tx, step, len(rows), now)
    if replay is None or not rows:
        return 0
    await tx.insert_deliveries(
        [
            NewDelivery(
                uid=new_id(),
                organization_id=replay.organization_id,
                subscription_id=replay.subscription_id,
                event_id=row.id,
                task_id=row.task_id,
                attempt=0,
                due_at=now,
                created_at=now,
                replay_id=step.replay_id,
            )
            for row in rows
        ]
    )
    return len(rows)


async def send_given_up(tx: Transaction, step: ReplayBatch, now: datetime) -> int:
    """Put what was given up on its way again; return how many. None as for `send_events`."""
    dead = and_(deliveries.c.id.in_(step.keys), deliveries.c.status == DeliveryStatus.DEAD)
    rows = await tx.execute(select(deliveries.c.id).where(dead))
    if await _move(tx, step, len(rows), now) is None:
        return 0
    await tx.execute(update(deliveries).where(dead).values(**_begun_anew(now), replay_id=step.replay_id))
    return len(rows)


async def cancel_replay(tx: Transaction, replay_id: int, now: datetime) -> int:
    """End a replay and cancel what of it is still on its way; return how many that were."""
    running = and_(replays.c.id == replay_id, replays.c.status == ReplayStatus.RUNNING)
    ended = await tx.execute(
        update(replays).where(running).values(status=ReplayStatus.CANCELLED, ended_at=now).returning(replays.c.id)
    )
    # `leased` stays as it is: it tells whether an attempt may still be under way (`Replays.retry`).
    cancelled = await tx.execute(
        update(deliveries)
        .where(_pending_of(replay_id))
        .values(status=DeliveryStatus.CANCELLED, due_at=None, settled_at=now)
        .returning(deliveries.c.id)
    )
    if cancelled and not ended:
        await tx.execute(update(replays).where(replays.c.id == replay_id).values(status=ReplayStatus.CANCELLED))
    return len(cancelled)


def delivery_to_retry(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for a delivery's state, and whether its subscription is there and switched on."""
    return (
        select(
            deliveries.c.id,
            deliveries.c.status,
            deliveries.c.leased,
            deliveries.c.settled_at,
            and_(subscriptions.c.is_active, subscriptions.c.deleted_at.is_(None)).label("is_active"),
        )
        .join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)
        .where(deliveries.c.organization_id == organization_id, deliveries.c.uid == uid)
    )


async def retry_delivery(tx: Transaction, delivery: Values, due_at: datetime) -> bool:
    """Put one settled delivery on its way again; False if it is not as `delivery_to_retry` found it."""
    same = and_(
        deliveries.c.id == delivery["id"],
        deliveries.c.status == delivery["status"],
        deliveries.c.settled_at == delivery["settled_at"],
    )
    return bool(
        await tx.execute(update(deliveries).where(same).values(**_begun_anew(due_at)).returning(deliveries.c.id))
    )


def _begun_anew(due_at: datetime) -> dict[str, Any]:
    """Return the columns of a delivery that is sent again: the schedule begins anew, attempts count on."""
    return {
        "status": DeliveryStatus.PENDING,
        "due_at": due_at,
        "leased": False,
        "schedule_from": deliveries.c.attempt,
        "settled_at": None,
    }


async def _move(tx: Transaction, step: ReplayBatch, sent: int, now: datetime) -> Any:
    """Move the replay's cursor if it is still where it was; return its row, or None."""
    values: dict[str, Any] = {"cursor": step.cursor, "sent": replays.c.sent + sent}
    if step.is_last:
        values |= {"status": ReplayStatus.DONE, "ended_at": now}
    mine = and_(
        replays.c.id == step.replay_id, replays.c.status == ReplayStatus.RUNNING, replays.c.cursor == step.cursor_was
    )
    moved = await tx.execute(
        update(replays).where(mine).values(**values).returning(replays.c.organization_id, replays.c.subscription_id)
    )
    return moved[0] if moved else None


def _pending_of(replay_id: int) -> Any:
    return and_(deliveries.c.replay_id == replay_id, deliveries.c.status == DeliveryStatus.PENDING)


def _in_range(organization_id: int, event_types: Collection[str], since: datetime, until: datetime) -> Any:
    return and_(
        events.c.organization_id == organization_id,
        events.c.created_at >= since,
        events.c.created_at <= until,
        events.c.type.in_(event_types),
    )


def _given_up(subscription_id: int, since: datetime, until: datetime) -> Any:
    return and_(
        deliveries.c.subscription_id == subscription_id,
        deliveries.c.status == DeliveryStatus.DEAD,
        deliveries.c.settled_at >= since,
        deliveries.c.settled_at <= until,
    )
