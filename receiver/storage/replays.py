"""Replays: deliveries that are sent again, in batches.

The rows of a batch and the replay's cursor are written in one transaction, so that no batch is sent twice or left out,
whatever process continues after a crash.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import Select, and_, func, insert, select, update

from models import DeliveryStatus, ReplayStatus
from receiver.domain.ids import new_id
from receiver.storage.bounded_count import count_up_to
from receiver.storage.events import matched_events
from receiver.storage.tables import deliveries, events, replays, subscriptions
from receiver.storage.transaction import NewDelivery, Transaction, Values

_NEWEST = 100
"""This many replays of one subscription are looked at for what is pending."""


class ReplayBatch(Struct, frozen=True, kw_only=True):
    """One batch of a replay: what to send, and its cursor before and after the batch."""

    replay_id: int
    keys: Sequence[int]
    """Row keys of events, or of deliveries for `recover`."""
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
    """Return the query for the running replays, each with the state and the filters of its subscription."""
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
    """Return the query for (replay_id, status, count) of the deliveries of these replays."""
    return (
        select(deliveries.c.replay_id, deliveries.c.status, func.count().label("count"))
        .where(deliveries.c.replay_id.in_(replay_ids))
        .group_by(deliveries.c.replay_id, deliveries.c.status)
    )


def pending_of(replay_id: int, most: int) -> Select[Any]:
    """Return the query that counts the pending deliveries of a replay, up to `most`."""
    return count_up_to(most, deliveries.c.id, _is_pending_of(replay_id))


def pending_replayed(subscription_id: int, most: int) -> Select[Any]:
    """Return the query that counts the pending deliveries of a subscription's newest replays, up to `most`."""
    newest = select(replays.c.id).where(replays.c.subscription_id == subscription_id)
    newest = newest.order_by(replays.c.id.desc()).limit(_NEWEST)
    is_wanted = and_(deliveries.c.replay_id.in_(newest), deliveries.c.status == DeliveryStatus.PENDING)
    return count_up_to(most, deliveries.c.id, is_wanted)


def events_to_replay(
    organization_id: int,
    event_types: Collection[str],
    since: datetime,
    until: datetime,
    after: int,
    limit: int,
) -> Select[Any]:
    """Return the query for a page of events in a range, oldest first, with the columns that filters need."""
    return (
        matched_events()
        .where(_is_in_range(organization_id, event_types, since, until), events.c.id > after)
        .order_by(events.c.id)
        .limit(limit)
    )


def count_events(
    organization_id: int, event_types: Collection[str], since: datetime, until: datetime, most: int
) -> Select[Any]:
    """Return the query that counts the events in a range, up to `most`."""
    return count_up_to(most, events.c.id, _is_in_range(organization_id, event_types, since, until))


def deliveries_to_recover(
    subscription_id: int, since: datetime, until: datetime, after: int, limit: int
) -> Select[Any]:
    """Return the query for a page of deliveries that were given up in a range, oldest first."""
    was_given_up = _was_given_up(subscription_id, since, until)
    return select(deliveries.c.id).where(was_given_up, deliveries.c.id > after).order_by(deliveries.c.id).limit(limit)


def count_given_up(subscription_id: int, since: datetime, until: datetime, most: int) -> Select[Any]:
    """Return the query that counts the deliveries that were given up in a range, up to `most`."""
    return count_up_to(most, deliveries.c.id, _was_given_up(subscription_id, since, until))


async def insert_replay(tx: Transaction, values: Values) -> int:
    """Insert one replay; return its row key."""
    tx.leaves(lambda: select(replays.c.id).where(replays.c.uid == values["uid"]), is_lasting=True)
    return int((await tx.execute(insert(replays).values(**values).returning(replays.c.id)))[0][0])


async def send_events(tx: Transaction, batch: ReplayBatch, now: datetime) -> int:
    """Insert a delivery for each event of the batch that was not purged; return how many.

    Returns 0 and writes nothing if the replay's cursor is not where the batch begins: the replay was cancelled, or
    another process sent the batch.
    """
    rows = await tx.execute(
        select(events.c.id, events.c.task_id).where(events.c.id.in_(batch.keys)).order_by(events.c.id)
    )
    replay = await _advance_cursor(tx, batch, len(rows), now)
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
                replay_id=batch.replay_id,
            )
            for row in rows
        ]
    )
    return len(rows)


async def send_given_up(tx: Transaction, batch: ReplayBatch, now: datetime) -> int:
    """Make the deliveries of the batch that were given up pending again; return how many. 0 as for `send_events`."""
    is_dead = and_(deliveries.c.id.in_(batch.keys), deliveries.c.status == DeliveryStatus.DEAD)
    rows = await tx.execute(select(deliveries.c.id).where(is_dead))
    if await _advance_cursor(tx, batch, len(rows), now) is None:
        return 0
    await tx.execute(update(deliveries).where(is_dead).values(**_pending_again(now), replay_id=batch.replay_id))
    return len(rows)


async def cancel_replay(tx: Transaction, replay_id: int, now: datetime) -> int:
    """End a replay and cancel its pending deliveries; return how many those were."""
    is_running = and_(replays.c.id == replay_id, replays.c.status == ReplayStatus.RUNNING)
    ended = await tx.execute(
        update(replays).where(is_running).values(status=ReplayStatus.CANCELLED, ended_at=now).returning(replays.c.id)
    )
    # `leased` stays as it is: it tells whether an attempt may still be in flight (see `receiver.outbound.replays`).
    cancelled = await tx.execute(
        update(deliveries)
        .where(_is_pending_of(replay_id))
        .values(status=DeliveryStatus.CANCELLED, due_at=None, settled_at=now)
        .returning(deliveries.c.id)
    )
    if cancelled and not ended:
        await tx.execute(update(replays).where(replays.c.id == replay_id).values(status=ReplayStatus.CANCELLED))
    return len(cancelled)


def delivery_to_retry(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for a delivery's state, and whether its subscription is active and not removed."""
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
    """Make one settled delivery pending again; return False if it changed since `delivery_to_retry` read it."""
    is_unchanged = and_(
        deliveries.c.id == delivery["id"],
        deliveries.c.status == delivery["status"],
        deliveries.c.settled_at == delivery["settled_at"],
    )
    return bool(
        await tx.execute(
            update(deliveries).where(is_unchanged).values(**_pending_again(due_at)).returning(deliveries.c.id)
        )
    )


def _pending_again(due_at: datetime) -> dict[str, Any]:
    """Return the columns of a delivery that is sent again: its retry schedule starts over, its attempts count on."""
    return {
        "status": DeliveryStatus.PENDING,
        "due_at": due_at,
        "leased": False,
        "schedule_from": deliveries.c.attempt,
        "settled_at": None,
    }


async def _advance_cursor(tx: Transaction, batch: ReplayBatch, sent: int, now: datetime) -> Any:
    """Advance the replay's cursor if it is where the batch begins; return the replay's owner columns, or None."""
    values: dict[str, Any] = {"cursor": batch.cursor, "sent": replays.c.sent + sent}
    if batch.is_last:
        values |= {"status": ReplayStatus.DONE, "ended_at": now}
    is_at_batch = and_(
        replays.c.id == batch.replay_id, replays.c.status == ReplayStatus.RUNNING, replays.c.cursor == batch.cursor_was
    )
    advanced = await tx.execute(
        update(replays)
        .where(is_at_batch)
        .values(**values)
        .returning(replays.c.organization_id, replays.c.subscription_id)
    )
    return advanced[0] if advanced else None


def _is_pending_of(replay_id: int) -> Any:
    return and_(deliveries.c.replay_id == replay_id, deliveries.c.status == DeliveryStatus.PENDING)


def _is_in_range(organization_id: int, event_types: Collection[str], since: datetime, until: datetime) -> Any:
    return and_(
        events.c.organization_id == organization_id,
        events.c.created_at >= since,
        events.c.created_at <= until,
        events.c.type.in_(event_types),
    )


def _was_given_up(subscription_id: int, since: datetime, until: datetime) -> Any:
    return and_(
        deliveries.c.subscription_id == subscription_id,
        deliveries.c.status == DeliveryStatus.DEAD,
        deliveries.c.settled_at >= since,
        deliveries.c.settled_at <= until,
    )
