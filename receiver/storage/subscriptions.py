"""Subscriptions: the queries of the API, finding those of new tasks, and changes, which include pending deliveries."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, insert, select, update

from models import DeliveryStatus, SubscriptionKind
from receiver.storage.callbacks import CallbackKey
from receiver.storage.hot import HotQuery
from receiver.storage.tables import deliveries, organizations, subscriptions
from receiver.storage.transaction import Transaction, Values

ENDPOINT_LIMITS = HotQuery(
    subscriptions.c.id,
    {"endpoint": [subscriptions.c[name] for name in ("id", "max_in_flight", "rate_limit", "ordered", "endpoint_url")]},
    lambda query: query,
)
"""What decides how fast deliveries of subscriptions are sent, by their row keys."""


def webhooks(organization_id: int, limit: int, before: int | None) -> Select[Any]:
    """Return the query for a page of registered subscriptions, newest first."""
    query = select(subscriptions).where(_registered(organization_id)).order_by(subscriptions.c.id.desc()).limit(limit)
    return query if before is None else query.where(subscriptions.c.id < before)


def newest_webhooks(limit: int) -> Select[Any]:
    """Return the query for the newest active registered subscriptions of all organizations: `uid`, `endpoint_url`."""
    table = subscriptions.c
    is_there = (table.kind == SubscriptionKind.REGISTERED, table.is_active, table.deleted_at.is_(None))
    return select(table.uid, table.endpoint_url).where(*is_there).order_by(table.id.desc()).limit(limit)


def webhook_by_id(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for one registered subscription, with its organization's id as `organization_uid`."""
    return (
        select(subscriptions, organizations.c.uid.label("organization_uid"))
        .join(organizations, organizations.c.id == subscriptions.c.organization_id)
        .where(_registered(organization_id), subscriptions.c.uid == uid)
    )


def webhook_key(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for a registered subscription's row key, also of a removed one, whose history can be read."""
    return select(subscriptions.c.id).where(
        subscriptions.c.organization_id == organization_id,
        subscriptions.c.kind == SubscriptionKind.REGISTERED,
        subscriptions.c.uid == uid,
    )


async def callback_keys(tx: Transaction, callbacks: Mapping[CallbackKey, Values]) -> dict[CallbackKey, int]:
    """Return the row key of each callback's subscription; insert the given row for a callback that has none yet."""
    if not callbacks:
        return {}
    known = await tx.find_callbacks(callbacks)
    if new := {key: row for key, row in callbacks.items() if key not in known}:
        known |= zip(new, await tx.insert_callbacks(list(new.values())), strict=True)
    return known


async def active_webhooks(tx: Transaction, keys: Collection[int]) -> list[dict[str, Any]]:
    """Return the rows of those of these subscriptions that are registered and active."""
    table = subscriptions.c
    wanted = (table.id.in_(keys), table.kind == SubscriptionKind.REGISTERED, table.is_active)
    return [dict(row._mapping) for row in await tx.execute(select(subscriptions).where(*wanted))]


async def set_failing_since(tx: Transaction, keys: Collection[int], moment: datetime | None) -> None:
    """Set the time of the first failure of endpoints since their last success; None after a success."""
    if keys:
        await tx.execute(update(subscriptions).where(subscriptions.c.id.in_(keys)).values(failing_since=moment))


async def insert_subscription(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Insert one subscription."""
    await tx.execute(insert(subscriptions), [values])
    tx.leaves(lambda: select(subscriptions.c.id).where(subscriptions.c.uid == values["uid"]), is_lasting=True)


def with_secret(uid: str, secret: str) -> Select[Any]:
    """Return the query that finds a subscription whose secret is this one, which is encrypted."""
    return select(subscriptions.c.id).where(subscriptions.c.uid == uid, subscriptions.c.secret == secret)


async def find_subscription(tx: Transaction, uid: str) -> dict[str, Any] | None:
    """Return the row of a subscription, also of a removed one; None if there is none."""
    found = await tx.execute(select(subscriptions).where(subscriptions.c.uid == uid))
    return dict(found[0]._mapping) if found else None


async def lock_subscription(tx: Transaction, uid: str) -> dict[str, Any] | None:
    """Return the row of a subscription, locked until the transaction ends; None if there is none, or it is removed."""
    wanted = select(subscriptions).where(subscriptions.c.uid == uid, subscriptions.c.deleted_at.is_(None))
    found = await tx.execute(wanted.with_for_update())
    return dict(found[0]._mapping) if found else None


async def change_subscription(tx: Transaction, uid: str, values: Mapping[str, Any], now: datetime) -> None:
    """Change columns of one subscription.

    Switching it off keeps its pending deliveries without a `due_at`; switching it on makes them due at once.
    """
    await tx.execute(update(subscriptions).where(subscriptions.c.uid == uid).values(**values, updated_at=now))
    if "is_active" in values:
        # Deliveries that are being sent stay as they are: making one due would send it twice at the same time.
        unsent = _update_pending(uid).where(deliveries.c.leased.is_(False))
        await tx.execute(unsent.values(due_at=now if values["is_active"] else None))


async def remove_subscription(tx: Transaction, uid: str, now: datetime) -> None:
    """Remove one subscription, and cancel its pending deliveries. Its row stays, for the history of its deliveries."""
    await tx.execute(
        update(subscriptions).where(subscriptions.c.uid == uid).values(is_active=False, deleted_at=now, updated_at=now)
    )
    await tx.execute(_update_pending(uid).values(status=DeliveryStatus.CANCELLED, due_at=None, settled_at=now))


def _update_pending(uid: str) -> Any:
    """Return the update of the pending deliveries of a subscription, without its values."""
    key = select(subscriptions.c.id).where(subscriptions.c.uid == uid).scalar_subquery()
    return update(deliveries).where(deliveries.c.subscription_id == key, deliveries.c.status == DeliveryStatus.PENDING)


def _registered(organization_id: int) -> Any:
    return and_(
        subscriptions.c.organization_id == organization_id,
        subscriptions.c.kind == SubscriptionKind.REGISTERED,
        subscriptions.c.deleted_at.is_(None),
    )
