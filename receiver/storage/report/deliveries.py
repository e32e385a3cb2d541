"""A report's queries about deliveries: the state of each, and the events that have none."""

from typing import Any

from sqlalchemy import CTE, ColumnElement, FromClause, Select, and_, case, exists, func, literal, null, or_, select

from models import DeliveryStatus, EventType, ReplayKind, SubscriptionKind
from receiver.domain.gaps import GapKind
from receiver.storage.report.subscriptions import ReportedWebhook
from receiver.storage.report.window import Chunk
from receiver.storage.tables import (
    deliveries,
    delivery_attempts,
    events,
    fan_outs,
    replays,
    runs,
    subscriptions,
    tasks,
)

DELIVERED, WAITING, DEAD, CANCELLED, OVERDUE = "delivered", "waiting", "dead", "cancelled", "overdue"
"""How a delivery without a gap stands; an overdue one waits, and nothing has sent it for long."""
_WITH_REPLAY = deliveries.join(events, events.c.id == deliveries.c.event_id).outerjoin(
    replays, replays.c.id == deliveries.c.replay_id
)
# `recover` sends the delivery of the event itself again; `replay` makes further ones.
_IS_OWN = func.coalesce(replays.c.kind, "") != ReplayKind.REPLAY
_IS_ACTIVE = and_(subscriptions.c.is_active, subscriptions.c.deleted_at.is_(None))


def count_events(chunk: Chunk) -> Select[Any]:
    """Return the query for (type, count) of the events of a chunk."""
    return select(events.c.type, func.count().label("count")).where(chunk.rows_of(events)).group_by(events.c.type)


def count_events_for(chunk: Chunk, webhook: ReportedWebhook) -> Select[Any]:
    """Return the query for the `count` of the events of a chunk that a webhook subscribes to, whatever its filters."""
    return select(func.count().label("count")).where(_is_for(chunk, webhook))


def count_deliveries(chunk: Chunk) -> Select[Any]:
    """Return the query for the `count` of the deliveries of a chunk's events, by the other columns of its rows.

    They are `webhook_key` (null for a client's own callback), `event_type`, `is_own` (not of a replay),
    `is_within` (the event came while the subscription was registered), and `standing`.
    """
    found = _standings(chunk)
    columns = (found.c.webhook_key, found.c.event_type, found.c.is_own, found.c.is_within, found.c.standing)
    return select(*columns, func.count().label("count")).group_by(*columns)


def deliveries_standing(chunk: Chunk, standing: str, limit: int) -> Select[Any]:
    """Return the query for (delivery_id, event_id, event_type, task_id, webhook_id) of deliveries that stand so."""
    found = _standings(chunk)
    return (
        select(
            found.c.uid.label("delivery_id"),
            events.c.uid.label("event_id"),
            events.c.type.label("event_type"),
            tasks.c.uid.label("task_id"),
            _webhook_uid(),
        )
        .join(events, events.c.id == found.c.event_key)
        .join(subscriptions, subscriptions.c.id == found.c.subscription_key)
        .outerjoin(tasks, tasks.c.id == events.c.task_id)
        .where(found.c.standing == standing)
        .order_by(found.c.id)
        .limit(limit)
    )


def undelivered(chunk: Chunk, webhook: ReportedWebhook) -> Select[Any]:
    """Return the query for the `count` of events that a webhook subscribes to and has no delivery of, in groups.

    A group has all that the webhook's filters compare: `model`, `task_type`, `run_uid`, `metadata`. `is_settled` tells
    whether the events came after the webhook's last change; `is_known`, whether the metadata is that of then: a task
    that was created elsewhere may be given some later; `is_to_be_written`, whether deliveries are still to be written.
    """
    rows = _undelivered(chunk, webhook)
    columns = [column for column in rows.c if column.name not in ("key", "event_id", "event_type", "task_id")]
    return select(*columns, func.count().label("count")).group_by(*columns)


def undelivered_events(chunk: Chunk, webhook: ReportedWebhook) -> Select[Any]:
    """Return the query for the single events of `undelivered`, with `event_id`, `event_type` and `task_id` too."""
    rows = _undelivered(chunk, webhook)
    return select(rows).order_by(rows.c.key)


def count_callback_events(chunk: Chunk) -> Select[Any]:
    """Return the query for the `count` of events of tasks with a callback, by `event_types` of it and their `type`.

    `delivered_to` is how many of them have a delivery to that callback.
    """
    has_delivery = _has_own_delivery(tasks.c.callback_id)
    return (
        select(
            subscriptions.c.event_types,
            events.c.type,
            func.count().label("count"),
            func.count(case((has_delivery, 1))).label("delivered_to"),
        )
        .select_from(_WITH_CALLBACK)
        .where(chunk.rows_of(events))
        .group_by(subscriptions.c.event_types, events.c.type)
    )


def callback_events_undelivered(chunk: Chunk) -> Select[Any]:
    """Return the query for (event_id, event_type, task_id, event_types) of such events without a delivery."""
    return (
        select(
            events.c.uid.label("event_id"),
            events.c.type.label("event_type"),
            tasks.c.uid.label("task_id"),
            subscriptions.c.event_types,
        )
        .select_from(_WITH_CALLBACK)
        .where(chunk.rows_of(events), ~_has_own_delivery(tasks.c.callback_id))
        .order_by(events.c.id)
    )


_WITH_CALLBACK = events.join(tasks, tasks.c.id == events.c.task_id).join(
    subscriptions, subscriptions.c.id == tasks.c.callback_id
)


def _standings(chunk: Chunk) -> CTE:
    """Return the deliveries of a chunk's events with their standing and what `count_deliveries` groups by."""
    status, due_at = deliveries.c.status, deliveries.c.due_at
    is_pending = status == DeliveryStatus.PENDING
    was_taken_back = or_(subscriptions.c.deleted_at.is_not(None), deliveries.c.replay_id.is_not(None))
    is_overdue = and_(is_pending, due_at < chunk.window.overdue_before, _IS_ACTIVE, ~_is_held())
    standing = case(
        (and_(_IS_OWN, _is_again()), GapKind.DELIVERY_DOUBLED),
        (and_(status == DeliveryStatus.DELIVERED, _is_answered()), DELIVERED),
        (status == DeliveryStatus.DELIVERED, GapKind.DELIVERY_UNPROVEN),
        (status == DeliveryStatus.DEAD, DEAD),
        (and_(status == DeliveryStatus.CANCELLED, was_taken_back), CANCELLED),
        (status == DeliveryStatus.CANCELLED, GapKind.DELIVERY_CANCELLED),
        (and_(is_pending, due_at.is_(None), _IS_ACTIVE), GapKind.DELIVERY_NOT_DUE),
        (is_overdue, OVERDUE),
        else_=WAITING,
    )
    registered_by = or_(
        events.c.created_at >= subscriptions.c.created_at, subscriptions.c.created_at > chunk.window.until
    )
    not_removed = or_(subscriptions.c.deleted_at.is_(None), events.c.created_at < subscriptions.c.deleted_at)
    return (
        select(
            deliveries.c.id,
            deliveries.c.uid,
            deliveries.c.event_id.label("event_key"),
            deliveries.c.subscription_id.label("subscription_key"),
            _webhook_key(),
            events.c.type.label("event_type"),
            _IS_OWN.label("is_own"),
            and_(registered_by, not_removed).label("is_within"),
            standing.label("standing"),
        )
        .select_from(_WITH_REPLAY.join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id))
        .where(chunk.rows_of(events))
        .cte("standing")
    )


def _is_again() -> ColumnElement[bool]:
    """Return the condition that the subscription has an earlier delivery of the same event, replays apart."""
    earlier = deliveries.alias("before")
    return exists().where(
        earlier.c.event_id == deliveries.c.event_id,
        earlier.c.subscription_id + 0 == deliveries.c.subscription_id,
        earlier.c.id < deliveries.c.id,
        _is_none_of_replay(earlier),
    )


def _is_answered() -> ColumnElement[bool]:
    """Return the condition that an attempt of the delivery was answered with a 2xx."""
    of_delivery = delivery_attempts.c.delivery_id == deliveries.c.id
    return exists().where(of_delivery, delivery_attempts.c.status_code.between(200, 299))


def _is_held() -> ColumnElement[bool]:
    """Return the condition that the delivery waits for an earlier one of its task, as its subscription wants it."""
    earlier = deliveries.alias("earlier")
    return and_(
        subscriptions.c.ordered,
        exists().where(
            earlier.c.task_id == deliveries.c.task_id,
            earlier.c.subscription_id + 0 == deliveries.c.subscription_id,
            earlier.c.id < deliveries.c.id,
            earlier.c.status == DeliveryStatus.PENDING,
        ),
    )


def _is_for(chunk: Chunk, webhook: ReportedWebhook) -> ColumnElement[bool]:
    """Return the condition that an event of the chunk is of a type of the webhook, and came while it was registered.

    A registration in the future is from before a clock was set back: any event may have come after it.
    """
    conditions = [chunk.rows_of(events), events.c.type.in_(sorted(webhook.event_types))]
    if webhook.created_at <= chunk.window.until:
        conditions.append(events.c.created_at >= webhook.created_at)
    if webhook.deleted_at is not None:
        conditions.append(events.c.created_at < webhook.deleted_at)
    return and_(*conditions)


def _undelivered(chunk: Chunk, webhook: ReportedWebhook) -> CTE:
    metadata: ColumnElement[Any] = null()
    is_known: ColumnElement[Any] = literal(1)
    if webhook.compares_metadata:
        metadata = func.coalesce(tasks.c.metadata, runs.c.metadata)
        creation = events.alias("creation")
        was_created = exists().where(creation.c.task_id == tasks.c.id, creation.c.type == EventType.TASK_CREATED)
        is_known = case((or_(tasks.c.id.is_(None), was_created), 1), else_=0)
    is_to_be_written = exists().where(
        fan_outs.c.event_id == events.c.id,
        fan_outs.c.after_subscription_id < webhook.key,
        fan_outs.c.until_subscription_id >= webhook.key,
    )
    return (
        select(
            events.c.id.label("key"),
            events.c.uid.label("event_id"),
            events.c.type.label("event_type"),
            tasks.c.uid.label("task_id"),
            case((events.c.created_at > webhook.settled_at, 1), else_=0).label("is_settled"),
            is_known.label("is_known"),
            case((is_to_be_written, 1), else_=0).label("is_to_be_written"),
            tasks.c.model,
            tasks.c.task_type,
            (events.c.run_uid if webhook.compares_runs or webhook.compares_metadata else null()).label("run_uid"),
            metadata.label("metadata"),
        )
        .select_from(
            events.outerjoin(tasks, tasks.c.id == events.c.task_id).outerjoin(runs, runs.c.uid == events.c.run_uid)
        )
        .where(_is_for(chunk, webhook), ~_has_own_delivery(literal(webhook.key)))
        .cte("undelivered")
    )


def _has_own_delivery(subscription_key: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that the event has a delivery to a subscription, replays apart."""
    # Not as a plain column: an event has few deliveries, a subscription many, and SQLite does not know which.
    of_event = and_(deliveries.c.event_id == events.c.id, deliveries.c.subscription_id + 0 == subscription_key)
    return exists().where(of_event, _is_none_of_replay(deliveries))


def _is_none_of_replay(table: FromClause) -> ColumnElement[bool]:
    replay = replays.alias("made_by")
    is_replayed = exists().where(replay.c.id == table.c.replay_id, replay.c.kind == ReplayKind.REPLAY)
    return or_(table.c.replay_id.is_(None), ~is_replayed)


def _webhook_key() -> ColumnElement[Any]:
    is_registered = subscriptions.c.kind == SubscriptionKind.REGISTERED
    return case((is_registered, subscriptions.c.id)).label("webhook_key")


def _webhook_uid() -> ColumnElement[Any]:
    is_registered = subscriptions.c.kind == SubscriptionKind.REGISTERED
    return case((is_registered, subscriptions.c.uid)).label("webhook_id")
