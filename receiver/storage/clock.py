"""The database's clock, and rows whose times are in the future because a clock was set back."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select, update

from receiver.storage.tables import deliveries, events, idempotency_keys, tasks
from receiver.storage.transaction import Transaction


def server_time() -> Select[Any]:
    """Return the query for the present time by PostgreSQL's clock, as `now`."""
    return select(func.clock_timestamp().label("now"))


def newest_time() -> Select[Any]:
    """Return the query for the time of the newest event, as `newest`; no row if there is none."""
    return select(events.c.created_at.label("newest")).order_by(events.c.id.desc()).limit(1)


async def pull_in(tx: Transaction, now: datetime, longest_lease: float) -> None:
    """Make due now what waits for a time in the future, and end each lease after `longest_lease` seconds at most.

    For the time after a clock was set back, when all of these times are too late by as much as it was set. What becomes
    due too early by this is only looked at, or sent again, once before its time.
    """
    ends = now + timedelta(seconds=longest_lease)
    for table in (tasks, deliveries):
        due_at, leased = table.c.due_at, table.c.leased
        await tx.execute(update(table).where(due_at > now, ~leased).values(due_at=now))
        await tx.execute(update(table).where(due_at > ends, leased).values(due_at=ends))
    lease_until = idempotency_keys.c.lease_until
    await tx.execute(update(idempotency_keys).where(lease_until > ends).values(lease_until=ends))
