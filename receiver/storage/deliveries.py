"""Deliveries: what sending one needs, and giving back what was not sent."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import bindparam, update

from models import DeliveryStatus
from receiver.storage.hot import HotQuery, among_keys
from receiver.storage.tables import deliveries, events, organizations, subscriptions, tasks
from receiver.storage.transaction import LeasedDelivery, Transaction

_OF_NO_INTEREST = frozenset(
    {"revision", "words", "looks", "leased", "due_at", "heard_at", "ended_event", "callback_id"}
)

TO_SEND = HotQuery(
    {
        "delivery": [deliveries.c[name] for name in ("id", "status", "attempt", "schedule_from")],
        "organization": [organizations.c.uid],
        "event": list(events.c),
        "subscription": [
            subscriptions.c[name]
            for name in ("endpoint_url", "format", "headers", "is_active", "secret", "retired_secrets")
        ],
        "task": [each for each in tasks.c if each.name not in _OF_NO_INTEREST],
    },
    lambda query: (
        query.join(events, events.c.id == deliveries.c.event_id)
        .join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)
        .join(organizations, organizations.c.id == deliveries.c.organization_id)
        .outerjoin(tasks, tasks.c.id == deliveries.c.task_id)
        .where(among_keys(deliveries.c.id))
    ),
)
"""Deliveries by their keys, with what sending them needs. All of the task's are null for an event of no task."""

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
