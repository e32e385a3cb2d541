"""Deliveries to look at: pages of them, and one with its attempts."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, case, func, select

from models import SubscriptionKind
from receiver.storage.tables import deliveries, delivery_attempts, events, replays, subscriptions, tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries, by the keys of what they belong to. `before` is the key that a cursor stands for."""

    organization_id: int
    status: str | None = None
    subscription_id: int | None = None
    event_id: int | None = None
    task_id: int | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    before: int | None = None


def deliveries_matching(wanted: DeliveryFilter, limit: int) -> Select[Any]:
    """Return the query for a page of deliveries, newest first, each with its last attempt."""
    return _with_last_attempt().where(_matches(wanted)).order_by(deliveries.c.id.desc()).limit(limit)


def delivery_by_id(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for one delivery, with its last attempt."""
    return _with_last_attempt().where(deliveries.c.organization_id == organization_id, deliveries.c.uid == uid)


def attempts_of(delivery_id: int) -> Select[Any]:
    """Return the query for a delivery's attempts, in order."""
    mine = delivery_attempts.c.delivery_id == delivery_id
    return select(delivery_attempts).where(mine).order_by(delivery_attempts.c.number)


def webhook_key(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for a registered subscription's key; one that was removed still has its history."""
    return select(subscriptions.c.id).where(
        subscriptions.c.organization_id == organization_id,
        subscriptions.c.kind == SubscriptionKind.REGISTERED,
        subscriptions.c.uid == uid,
    )


def event_key(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for an event's key."""
    return select(events.c.id).where(events.c.organization_id == organization_id, events.c.uid == uid)


def _with_last_attempt() -> Select[Any]:
    last = delivery_attempts.alias("last")
    newest = select(func.max(delivery_attempts.c.number)).where(delivery_attempts.c.delivery_id == deliveries.c.id)
    its_last = and_(last.c.delivery_id == deliveries.c.id, last.c.number == newest.scalar_subquery())
    registered = subscriptions.c.kind == SubscriptionKind.REGISTERED
    return (
        select(
            deliveries,
            events.c.uid.label("event_uid"),
            events.c.type.label("event_type"),
            tasks.c.uid.label("task_uid"),
            replays.c.uid.label("replay_uid"),
            case((registered, subscriptions.c.uid)).label("webhook_uid"),
            subscriptions.c.endpoint_url,
            last.c.status_code,
            last.c.error,
        )
        .join(events, events.c.id == deliveries.c.event_id)
        .join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)
        .outerjoin(tasks, tasks.c.id == deliveries.c.task_id)
        .outerjoin(replays, replays.c.id == deliveries.c.replay_id)
        .outerjoin(last, its_last)
    )


def _matches(wanted: DeliveryFilter) -> Any:
    conditions = [deliveries.c.organization_id == wanted.organization_id]
    for column, value in (
        (deliveries.c.status, wanted.status),
        (deliveries.c.subscription_id, wanted.subscription_id),
        (deliveries.c.event_id, wanted.event_id),
        (deliveries.c.task_id, wanted.task_id),
    ):
        if value is not None:
            conditions.append(column == value)
    if wanted.created_after is not None:
        conditions.append(deliveries.c.created_at > wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(deliveries.c.created_at < wanted.created_before)
    if wanted.before is not None:
        conditions.append(deliveries.c.id < wanted.before)
    return and_(*conditions)
