"""Leases that nobody holds any more."""

from datetime import datetime

from sqlalchemy import update

from receiver.storage.tables import deliveries, tasks
from receiver.storage.transaction import Transaction


async def end_leases(tx: Transaction, now: datetime) -> None:
    """Make everything that is leased due at once: for the start of the only process that a database has."""
    for table in (tasks, deliveries):
        await tx.execute(
            update(table).where(table.c.leased, table.c.due_at.is_not(None)).values(due_at=now, leased=False)
        )
