"""Writing subscriptions. A delivery that waits goes with its subscription."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Select, insert, select, update

from models import DeliveryStatus
from receiver.storage.tables import deliveries, subscriptions
from receiver.storage.transaction import Transaction


async def insert_subscription(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Insert one subscription."""
    await tx.execute(insert(subscriptions), [values])


async def find_subscription(tx: Transaction, uid: str) -> dict[str, Any] | None:
    """Return the row of a subscription, which may be removed."""
    found = await tx.execute(select(subscriptions).where(subscriptions.c.uid == uid))
    return dict(found[0]._mapping) if found else None


async def lock_subscription(tx: Transaction, uid: str) -> dict[str, Any] | None:
    """Return the row of a subscription that is not removed, locked until the transaction's end."""
    wanted = select(subscriptions).where(subscriptions.c.uid == uid, subscriptions.c.deleted_at.is_(None))
    found = await tx.execute(wanted.with_for_update())
    return dict(found[0]._mapping) if found else None


async def change_subscription(tx: Transaction, uid: str, values: Mapping[str, Any], now: datetime) -> None:
    """Change columns of one subscription. Switching it off keeps what waits; switching it on makes that due."""
    await tx.execute(update(subscriptions).where(subscriptions.c.uid == uid).values(**values, updated_at=now))
    if "is_active" in values:
        # What is under way is left alone: making it due would send it twice at once.
        waiting = _waiting_for(uid).where(deliveries.c.leased.is_(False))
        await tx.execute(waiting.values(due_at=now if values["is_active"] else None))


async def remove_subscription(tx: Transaction, uid: str, now: datetime) -> None:
    """Remove one subscription for everybody but its history, and cancel what waits for it."""
    await tx.execute(
        update(subscriptions).where(subscriptions.c.uid == uid).values(is_active=False, deleted_at=now, updated_at=now)
    )
    await tx.execute(_waiting_for(uid).values(status=DeliveryStatus.CANCELLED, due_at=None, settled_at=now))


def endpoint_limits(subscription_ids: Collection[int]) -> Select[Any]:
    """Return the query for what these subscriptions allow."""
    table = subscriptions.c
    return select(table.id, table.max_in_flight, table.rate_limit, table.ordered).where(table.id.in_(subscription_ids))


def _waiting_for(uid: str) -> Any:
    key = select(subscriptions.c.id).where(subscriptions.c.uid == uid).scalar_subquery()
    return update(deliveries).where(deliveries.c.subscription_id == key, deliveries.c.status == DeliveryStatus.PENDING)
