"""Leases that nobody holds any more."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import update

from models import Submission
from receiver.storage.tables import deliveries, idempotency_keys, tasks
from receiver.storage.transaction import Transaction


async def end_leases(tx: Transaction, now: datetime) -> None:
    """Make everything that is leased due, or free, at once: for the start of a database's only process."""
    for table in (tasks, deliveries):
        await tx.execute(
            update(table).where(table.c.leased, table.c.due_at.is_not(None)).values(due_at=now, leased=False)
        )
    unanswered = idempotency_keys.c.status.is_(None)
    await tx.execute(update(idempotency_keys).where(unanswered).values(lease_until=now))


async def give_back_tasks(tx: Transaction, keys: Collection[int], now: datetime) -> None:
    """Make tasks due at once whose holder stops before it is done with them.

    Not those that are being sent: whether they were is known only when the lease has run out.
    """
    held = (tasks.c.id.in_(keys), tasks.c.leased, tasks.c.due_at.is_not(None), tasks.c.submission != Submission.SENDING)
    await tx.execute(update(tasks).where(*held).values(due_at=now, leased=False))
