"""Waits for transactions that are writing a table: what they commit belongs to the time before the wait.

Why: on PostgreSQL several processes write at once, and a reader sees a row only after its transaction has committed.
So "all events up to now" cannot be read at once: an event may have been written, with its time and its sequence number,
by a transaction whose COMMIT is under way. A reader that must not miss it notes which transactions are writing the
table at this moment and waits until all of them have ended. What is not visible then was rolled back, or was written by
a transaction that began later. On SQLite there is one writer, and nothing to wait for.

Only Ringback's own writers count (`receiver.storage.postgresql.own_sessions`). The server bounds how long one of them
lasts (`receiver.storage.postgresql.server`), also when its process hangs. One that lasts longer nevertheless, say
because the server's clock was set, is not waited for any more after `MOST_SECONDS`: that is logged and counted.
"""

import asyncio
from typing import Self

from sqlalchemy import Table, text

from receiver.storage.database import Database
from receiver.storage.tables import (
    api_keys,
    bulk_actions,
    deliveries,
    delivery_attempts,
    events,
    replays,
    subscriptions,
)
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import open_writers_left

EVENTS = events
"""For readers of events."""
DELIVERIES = deliveries
"""For readers of outcomes of deliveries."""
DELIVERY_ATTEMPTS = delivery_attempts
"""For readers of attempts."""
WORK = (events, subscriptions, deliveries, replays, bulk_actions, api_keys)
"""For readers of what a request did: each request that changes something writes one of these."""
MOST_SECONDS = 40.0
"""Longer than the server lets a transaction of ours last: 20 s without a statement after one of 14 s."""
_INTERVAL_SECONDS = 0.005
"""How often they are looked at: PostgreSQL sends no message when a transaction ends."""

log = get_logger("storage.open_writers")


class OpenWriters:
    """The transactions that were writing a table when `of` read them, as far as they have not ended."""

    def __init__(self, database: Database, table: Table, transactions: set[str]) -> None:
        self._database = database
        self._table = table
        self._open = transactions
        self._until = asyncio.get_running_loop().time() + MOST_SECONDS

    @classmethod
    async def of(cls, database: Database, table: Table) -> Self:
        """Return the transactions that are writing this table now. Raises `StorageUnavailable`."""
        return cls(database, table, await _writers_of(database, table))

    async def ended(self, within: float = MOST_SECONDS) -> bool:
        """Wait until all have ended, at most `within` seconds; return whether they have.

        Raises `StorageUnavailable`.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + within
        while self._open:
            if clock() >= self._until:
                log.warning("open writers not waited for any longer", table=self._table.name, count=len(self._open))
                open_writers_left.inc()
                self._open = set()
            elif clock() >= end:
                return False
            else:
                await asyncio.sleep(_INTERVAL_SECONDS)
                self._open &= await _writers_of(self._database, self._table)
        return True


async def _writers_of(database: Database, table: Table) -> set[str]:
    if database.shared is None:
        return set()
    from receiver.storage.postgresql.own_sessions import OPEN_WRITERS

    rows = await database.read(text(OPEN_WRITERS).bindparams(relation=table.name))
    return {row["writer"] for row in rows}
