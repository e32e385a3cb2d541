"""Finds out whether a pooler gives each transaction another session, as PgBouncer does in transaction mode.

The service could not work with it: a session listens for notices, marks itself as a writer by a lock, prepares its
statements, and has settings. In session mode a pooler gives a connection one session for as long as it is open.
"""

import asyncpg
from asyncpg.exceptions import DuplicatePreparedStatementError, InvalidSQLStatementNameError

from receiver.errors import DatabaseAway, StartError
from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.postgresql.errors import is_unavailable
from receiver.storage.postgresql.location import POOLER_ADVICE
from receiver.storage.postgresql.server import connect

PROCESS_CONNECTIONS = 10
"""How many connections a process may have: five that read, one for hot reads, two writers, notices and limits."""
_SECONDS = 5.0
"""How long a pooler may take to open a second connection."""
_WHICH = "SELECT pg_backend_pid()"


async def refuse_transaction_pooling(dsn: str, connection: CoreConnection) -> None:
    """Raise `StartError` if a connection's transactions run in different sessions. It must not be in a transaction."""
    first = (await connection.get_raw_connection()).driver_connection
    assert first is not None  # noqa: S101 - it is open
    try:
        session = await first.fetchval(_WHICH)
        if session != first.get_server_pid() and await _shares(first, session, dsn):
            raise _refused()
    except (DuplicatePreparedStatementError, InvalidSQLStatementNameError):
        raise _refused() from None


async def _shares(first: asyncpg.Connection, session: object, dsn: str) -> bool:
    """Return whether another connection gets the session of this one, or this one gets another meanwhile."""
    try:
        second = await connect(dsn, command_seconds=_SECONDS)
    except Exception as error:
        if not is_unavailable(error):
            raise
        raise DatabaseAway(
            f"the pooler before PostgreSQL gives no second connection ({error or type(error).__name__}); let it open "
            f"at least {PROCESS_CONNECTIONS} for each process of Ringback (PgBouncer: default_pool_size)"
        ) from None
    try:
        async with second.transaction():
            return bool(await second.fetchval(_WHICH) == session or await first.fetchval(_WHICH) != session)
    finally:
        await second.close()


def _refused() -> StartError:
    return StartError(f"PostgreSQL cannot be used through what RINGBACK_DATABASE_URL names: {POOLER_ADVICE}")
