"""What a transaction leaves in the tables by which it can be found out whether it was committed.

Two kinds of rows are evidence. One that was inserted and stays is lasting: it is there if the transaction was
committed, and not if it was not. A value that this transaction alone wrote, and that a later one may replace, is a
trace: where it is found the transaction was committed; where it is not, nothing is known.

What each transaction of the service leaves, and what a caller does that cannot learn the outcome:

| transaction | evidence | without an answer |
|---|---|---|
| create, bulk, run, a step's next task | the row (lasting) | 504; sent only when it is known to be on disk |
| update from a webhook | its event (lasting), if it wrote one | 5xx: the provider repeats it, without harm |
| these two, in one statement (`optimistic`) | the same; keys that are not known yet are read with it | the same |
| update from a poll or a create call; receipt | as above | polled, or written, again |
| intent to send (`leases.mark_sending`) | `submit_token` (trace) | not sent; sent again when it is known |
| claim of tasks, of deliveries | the end of the lease (trace) | not acted on until it is known |
| claim of tasks in one statement (`task_claims`) | the same; which they are is read with it | the same |
| settlement of a delivery | an event, if it disables the endpoint | written again: the attempt guards it |
| postponement, return of a lease, `cancel_requested_at` | none | written again, or left to the next claim |
| claim of an idempotency key | owner and lease (trace) | claimed again, before any work |
| saved response, state found | none | 504: the repeated request finds what the work made |
| retry of a task or run, cancel | the event or the new task (lasting) | 504; a repetition compares states |
| webhook, API key, replay: created | the row (lasting) | 504 |
| webhook rotated | the new secret (trace) | 504; a repetition compares states |
| webhook changed or removed, key revoked | none | 504; the same again does no harm |
| delivery retried, replay cancelled | none | 504; a repetition compares states |
| batch of a replay | its deliveries (lasting) | written again: guarded by the cursor |
| purge | none | purged again |
"""

import asyncio
from typing import Any, Protocol

from sqlalchemy import Executable, text

from receiver.storage.postgresql import errors
from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.transaction import Trace


class Evidence(Protocol):
    """How to tell whether a transaction was committed. `is_whole` if one statement is all of it."""

    is_whole: bool

    def confirms(self, committing: "asyncio.Task[Any]") -> bool:
        """Return whether the server's answer to the statement that commits says that it did."""
        ...

    async def find(self, connection: CoreConnection) -> bool | None:
        """Return whether the transaction, which has ended, was committed; None if the tables do not tell."""
        ...


class CommitEvidence:
    """The evidence of one transaction that ends with COMMIT."""

    is_whole = False

    def __init__(self) -> None:
        self.inserted: tuple[str, str] | None = None
        """The table and the public id of a task, an event or a delivery that it inserted."""
        self._lasting: Trace | None = None
        self._traces: list[Trace] = []

    def add(self, trace: Trace, *, is_lasting: bool) -> None:
        """Note a query that finds a row if the transaction was committed."""
        if is_lasting:
            self._lasting = trace
        else:
            self._traces.append(trace)

    def confirms(self, committing: "asyncio.Task[Any]") -> bool:
        """Return whether the server answered the COMMIT with success."""
        return errors.is_committed(committing)

    async def find(self, connection: CoreConnection) -> bool | None:
        """Return whether the transaction, which has ended, was committed; None if the tables do not tell."""
        if self.inserted is not None:
            table, uid = self.inserted
            return await _finds(connection, text(f"SELECT 1 FROM {table} WHERE uid = '{uid}'"))
        if self._lasting is not None:
            return await _finds(connection, self._lasting())
        for trace in self._traces:
            if await _finds(connection, trace()):
                return True
        return None


async def _finds(connection: CoreConnection, query: Executable) -> bool:
    return (await connection.execute(query)).first() is not None
