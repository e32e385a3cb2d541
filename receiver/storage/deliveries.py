"""Deliveries: what sending one needs, and giving back what was not sent."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, select, update

from models import DeliveryStatus
from receiver.storage.tables import deliveries, events, subscriptions, tasks
from receiver.storage.transaction import LeasedDelivery, Transaction


def to_send(delivery_ids: Collection[int]) -> Select[Any]:
    """Return the query for deliveries with their event, task and subscription; columns are prefixed by table."""
    return (
        select(
            deliveries.c.id.label("delivery_id"),
            deliveries.c.uid.label("delivery_uid"),
            deliveries.c.status.label("delivery_status"),
            deliveries.c.attempt.label("delivery_attempt"),
            deliveries.c.schedule_from.label("delivery_schedule_from"),
            *(column.label(f"event_{column.name}") for column in events.c),
            *(column.label(f"subscription_{column.name}") for column in subscriptions.c),
            *(column.label(f"task_{column.name}") for column in tasks.c),
        )
        .join(events, events.c.id == deliveries.c.event_id)
        .join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)
        .join(tasks, tasks.c.id == deliveries.c.task_id)
        .where(deliveries.c.id.in_(delivery_ids))
    )


_UNSENT = (
    update(deliveries)
    .where(
        deliveries.c.id == bindparam("delivery"),
        deliveries.c.attempt == bindparam("held"),
        deliveries.c.status == DeliveryStatus.PENDING,
    )
    .values(attempt=deliveries.c.attempt - 1, due_at=bindparam("next_due"), leased=False)
)


async def give_back(tx: Transaction, unsent: Sequence[LeasedDelivery], due_at: datetime | None) -> None:
    """End the leases of deliveries that were not sent, as if they had never been claimed.

    `due_at` None parks them: they wait for their subscription to be switched on again.
    """
    if unsent:
        await tx.execute(_UNSENT, [{"delivery": each.id, "held": each.attempt, "next_due": due_at} for each in unsent])
