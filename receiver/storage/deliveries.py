"""Deliveries: what sending one needs, and giving back what was not sent."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import bindparam, select, update

from models import DeliveryStatus
from receiver.storage.hot import HotQuery
from receiver.storage.tables import deliveries, events, organizations, subscriptions, tasks
from receiver.storage.transaction import LeasedDelivery, Transaction

_OF_NO_INTEREST = frozenset(
    {"revision", "words", "poll_count", "leased", "due_at", "last_update_at", "ended_event", "callback_id"}
)

TO_SEND = HotQuery(
    deliveries.c.id,
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
    ),
)
"""Deliveries by their keys, with what sending them needs. All of the task's are null for an event of no task."""

_HELD = (
    deliveries.c.id == bindparam("delivery"),
    deliveries.c.attempt == bindparam("held"),
    deliveries.c.status == DeliveryStatus.PENDING,
)
_UNSENT = (
    update(deliveries)
    .where(*_HELD)
    .values(attempt=deliveries.c.attempt - 1, due_at=bindparam("next_due"), leased=False)
)
_CANCEL = (
    update(deliveries)
    .where(*_HELD)
    .values(status=DeliveryStatus.CANCELLED, due_at=None, leased=False, settled_at=bindparam("cancelled_at"))
)


async def give_back(tx: Transaction, unsent: Sequence[LeasedDelivery], due_at: datetime | None) -> None:
    """End the leases of deliveries that were not sent, as if they had never been claimed.

    `due_at` None parks them: they wait for their subscription to be switched on again.
    """
    if unsent:
        await tx.execute(_UNSENT, [{"delivery": each.id, "held": each.attempt, "next_due": due_at} for each in unsent])


async def park(tx: Transaction, unsent: Sequence[LeasedDelivery], now: datetime) -> None:
    """Give back deliveries whose subscription was found switched off; those of a removed one are cancelled.

    What the subscription is by now decides, and its row is locked: whoever switches it on sees what was parked.
    """
    table = subscriptions.c
    wanted = table.id.in_({each.subscription_id for each in unsent})
    rows = await tx.execute(
        select(table.id, table.is_active, table.deleted_at).where(wanted).with_for_update(read=True)
    )
    removed = {row.id for row in rows if row.deleted_at is not None}
    active = {row.id for row in rows if row.is_active}
    await give_back(tx, [each for each in unsent if each.subscription_id in active], now)
    await give_back(tx, [each for each in unsent if each.subscription_id not in active | removed], None)
    if cancelled := [each for each in unsent if each.subscription_id in removed]:
        await tx.execute(
            _CANCEL, [{"delivery": each.id, "held": each.attempt, "cancelled_at": now} for each in cancelled]
        )
