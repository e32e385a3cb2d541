"""System events: which conditions were told, and the alerts that are to be sent."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, delete, insert, select, update

from models import SubscriptionKind
from receiver.storage.tables import alerts, deliveries, events, subscriptions, system_conditions, tasks
from receiver.storage.transaction import Transaction

TOLD_AGAIN = timedelta(days=1)
"""A condition that lasts is told again after this time."""


async def begin_condition(tx: Transaction, type: str, subject: str, now: datetime) -> bool:
    """Note that a condition is told now; return False where it was told within `TOLD_AGAIN`, and is not to be."""
    table = system_conditions.c
    key = and_(table.type == type, table.subject == subject)
    found = await tx.execute(select(table.told_at).where(key).with_for_update())
    if not found:
        await tx.execute(insert(system_conditions), [{"type": type, "subject": subject, "told_at": now}])
        return True
    if found[0].told_at > now - TOLD_AGAIN:
        return False
    await tx.execute(update(system_conditions).where(key).values(told_at=now))
    return True


async def end_conditions(tx: Transaction, type: str, subjects: Collection[str]) -> None:
    """Note that conditions are over: they are told as soon as they begin again."""
    if subjects:
        table = system_conditions.c
        await tx.execute(delete(system_conditions).where(table.type == type, table.subject.in_(subjects)))


async def forget_conditions(tx: Transaction, before: datetime) -> int:
    """Delete the conditions that were told last before a time; return how many."""
    gone = delete(system_conditions).where(system_conditions.c.told_at < before)
    return len(await tx.execute(gone.returning(system_conditions.c.subject)))


def dead_deliveries(keys: Sequence[int]) -> Select[Any]:
    """Return the query for what a system event says of deliveries: their ids as the API shows them."""
    is_registered = and_(
        subscriptions.c.id == deliveries.c.subscription_id, subscriptions.c.kind == SubscriptionKind.REGISTERED
    )
    return (
        select(
            deliveries.c.id,
            deliveries.c.uid,
            deliveries.c.organization_id,
            deliveries.c.attempt,
            events.c.uid.label("event_uid"),
            events.c.type.label("event_type"),
            subscriptions.c.uid.label("webhook_uid"),
            tasks.c.uid.label("task_uid"),
        )
        .join(events, events.c.id == deliveries.c.event_id)
        .outerjoin(subscriptions, is_registered)
        .outerjoin(tasks, tasks.c.id == deliveries.c.task_id)
        .where(deliveries.c.id.in_(keys))
        .order_by(deliveries.c.id)
    )


async def insert_alerts(tx: Transaction, new: Iterable[Mapping[str, Any]]) -> None:
    """Insert alerts: each has `event_uid`, `channel`, `type`, `text`, `due_at` and `created_at`."""
    await tx.execute(insert(alerts), [{"attempt": 0, **each} for each in new])


async def claim_alerts(tx: Transaction, now: datetime, lease_until: datetime, limit: int) -> list[dict[str, Any]]:
    """Lease the oldest alerts that are due, each for one attempt; return their rows."""
    due = select(alerts).where(alerts.c.due_at <= now).order_by(alerts.c.id).limit(limit)
    found = [dict(row._mapping) for row in await tx.execute(due.with_for_update(skip_locked=True))]
    if found:
        mine = alerts.c.id.in_([row["id"] for row in found])
        await tx.execute(update(alerts).where(mine).values(due_at=lease_until, attempt=alerts.c.attempt + 1))
    return [{**row, "attempt": row["attempt"] + 1} for row in found]


async def delete_alerts(tx: Transaction, keys: Sequence[int]) -> None:
    """Delete alerts that were sent, or given up."""
    await tx.execute(delete(alerts).where(alerts.c.id.in_(keys)))


async def postpone_alerts(tx: Transaction, keys: Sequence[int], due_at: datetime) -> None:
    """Send alerts again at `due_at`."""
    await tx.execute(update(alerts).where(alerts.c.id.in_(keys)).values(due_at=due_at))


def next_alert() -> Select[Any]:
    """Return the query for when the next alert is due (`due_at`); no row if there is none."""
    return select(alerts.c.due_at).order_by(alerts.c.due_at).limit(1)
