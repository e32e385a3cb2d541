"""Changes to the form of tables that are in use: each is a transaction of milliseconds that has them to itself.

The wait for the lock is short, because everything that comes later waits behind it. What holds it for longer, such as a
backup or a report, is given way to, and the transaction begins again after a pause.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from receiver.errors import StartError
from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.postgresql.errors import driver_error, is_conflict, is_locked
from receiver.storage.postgresql.migrating import watched_blockers
from receiver.telemetry.log import get_logger

log = get_logger("storage.postgresql.locked_tables")

T = TypeVar("T")
TRIES = 20
LOCK_MILLISECONDS = 150
"""How long each of the tables is waited for while all that comes later waits too."""
VACUUM_MILLISECONDS = 5_000
"""How long before that an autovacuum is waited for, while no write waits: one gives way after a second."""
PAUSE_SECONDS = 2.0
TABLES = ("organization", "subscription", "replay", "task", "event", "delivery", "delivery_attempt", "fan_out")
"""What is partitioned, and what keys of those tables refer to, which such a change locks too."""


@asynccontextmanager
async def told_in_one_line(done: str) -> AsyncIterator[None]:
    """Turn an error of the database into one line for the operator; `done` completes "the tables cannot be ..."."""
    try:
        yield
    except DBAPIError as error:
        cause = str(driver_error(error)).partition("\n")[0]
        raise StartError(
            f"the tables cannot be {done} ({cause}); use the role that owns them, mend that, then try again"
        ) from None


async def with_locked_tables(connection: CoreConnection, dsn: str, work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` in a transaction of this connection that alone uses `TABLES`; return its result.

    Raises `StartError`, with the sessions that are in the way, when they are still locked after `TRIES`.
    """
    who = "a session that has ended since"
    for number in range(1, TRIES + 1):
        async with watched_blockers(connection, dsn, every_seconds=LOCK_MILLISECONDS / 2000) as blockers:
            try:
                return await _try(connection, work)
            except BaseException as error:
                with suppress(Exception):  # of a connection that is lost; its transaction is then, too
                    await connection.exec_driver_sql("ROLLBACK")
                if not isinstance(error, DBAPIError) or not (is_locked(error) or is_conflict(error)):
                    raise
        who = "; ".join(blockers.values()) or who
        log.info("tables in use", number=number, tries=TRIES, held_by=who)
        if number < TRIES:
            await asyncio.sleep(PAUSE_SECONDS)
    raise StartError(f"the tables are in use by {who}; end what that session does, then try again")


async def _try(connection: CoreConnection, work: Callable[[], Awaitable[T]]) -> T:
    await connection.exec_driver_sql("BEGIN")
    await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{VACUUM_MILLISECONDS}ms'")
    await connection.exec_driver_sql(f"LOCK TABLE {', '.join(TABLES)} IN SHARE UPDATE EXCLUSIVE MODE")
    await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'")
    await connection.exec_driver_sql(f"LOCK TABLE {', '.join(TABLES)}")
    result = await work()
    await connection.exec_driver_sql("COMMIT")
    return result
