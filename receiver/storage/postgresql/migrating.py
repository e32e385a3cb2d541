"""Migrates a schema on PostgreSQL beside sessions that use it: every wait has a bound, and says what it waits for.

A change of a table waits until no other session uses that table, and all that come later wait behind it, the service
too. So a try waits only for `_LOCK_SECONDS`, then gives way for `_PAUSE_SECONDS`, and begins again. While a try waits,
another connection asks the server who is in the way: that is the only moment at which the server knows it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

import migrations
from receiver.errors import StartError
from receiver.storage.compatibility import present_schema
from receiver.storage.postgresql.connecting import connected
from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.postgresql.errors import driver_error, is_locked, is_unavailable
from receiver.storage.postgresql.server import connect
from receiver.telemetry.log import get_logger

log = get_logger("storage.postgresql.migrating")

TRIES = 6
_LOCK_SECONDS = 3.0
_PAUSE_SECONDS = 2.0
_OTHER_SECONDS = 600.0
"""How long another process is waited for that migrates or partitions the database."""
_LOOK_SECONDS = 0.5
_LOCK = 0x52494E47
"""The number of the advisory lock of who changes the form of tables: "RING" in ASCII."""
_SETTINGS = {"lock_timeout": f"{_LOCK_SECONDS}s"}
_DESCRIBE = (
    "SELECT pid, usename AS user, application_name AS application, state, "
    "extract(epoch FROM clock_timestamp() - xact_start)::int AS seconds FROM pg_stat_activity WHERE pid IN ({which})"
)
_IN_THE_WAY = "SELECT unnest(pg_blocking_pids($1))"
_MIGRATING = (
    f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 0 AND objid = {_LOCK} AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


async def migrate_server(dsn: str, *, upgrade: Callable[[Connection], None]) -> tuple[str | None, str]:
    """Migrate to the newest revision in one transaction; return (the revision before, the revision now).

    `upgrade` runs the migrations. Raises `StartError` for a schema that this version cannot run on, and, with the
    sessions that hold a lock, if it stays locked for `TRIES` tries.
    """
    async with connected(dsn, _SETTINGS, command_seconds=None) as connection:
        try:
            await lock_out_others(connection, dsn)
            for number in range(1, TRIES + 1):
                async with watched_blockers(connection, dsn) as blockers:
                    try:
                        return await _try(connection, upgrade)
                    except DBAPIError as error:
                        if not is_locked(error):
                            raise
                await connection.exec_driver_sql("ROLLBACK")
                who = "; ".join(blockers.values()) or "a session that has ended since"
                log.warning("migration waits for a lock", number=number, tries=TRIES, held_by=who)
                if number < TRIES:
                    await asyncio.sleep(_PAUSE_SECONDS)
        except DBAPIError as error:
            if not is_unavailable(error):
                raise
            cause = driver_error(error)
            raise StartError(f"the migration was interrupted ({cause}); run `ringback migrate` again") from None
    pids = ", ".join(map(str, blockers)) or "PID"
    raise StartError(
        f"the schema cannot be migrated, nothing was changed: a table is locked by {who}; end what that session does, "
        f"or the session itself with SELECT pg_terminate_backend({pids}), then run `ringback migrate` again"
    )


async def _try(connection: CoreConnection, upgrade: Callable[[Connection], None]) -> tuple[str | None, str]:
    found = await connection.run_sync(present_schema)
    if not found.is_to_be_migrated():
        return found.revision, found.revision or migrations.HEAD
    await connection.exec_driver_sql("BEGIN")
    await connection.run_sync(upgrade)
    await connection.exec_driver_sql("COMMIT")
    return found.revision, migrations.HEAD


@asynccontextmanager
async def watched_blockers(
    connection: CoreConnection, dsn: str, *, every_seconds: float | None = None
) -> AsyncIterator[dict[int, str]]:
    """Yield who was last in the way of a connection: a line for each session, by its process id.

    It is kept up to date until the context ends, and stays as it is then.
    """
    pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    blockers: dict[int, str] = {}
    ended = asyncio.Event()
    watch = asyncio.create_task(_watch(dsn, pid, blockers, ended, every_seconds or _LOOK_SECONDS))
    try:
        yield blockers
    finally:
        ended.set()
        await asyncio.gather(watch, return_exceptions=True)


async def _watch(dsn: str, pid: int, blockers: dict[int, str], ended: asyncio.Event, every_seconds: float) -> None:
    while not ended.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(every_seconds):
                await ended.wait()
        found = {} if ended.is_set() else await _sessions(dsn, _IN_THE_WAY, pid)
        if found:
            blockers.clear()
            blockers.update(found)


async def _sessions(dsn: str, which: str, *arguments: Any) -> dict[int, str]:
    """Return a line for each session that `which` selects. What they run is left out: it may have secrets in it."""
    connection = await connect(dsn)
    try:
        rows = await connection.fetch(_DESCRIBE.format(which=which), *arguments)
    finally:
        await connection.close()
    return {row["pid"]: _line(dict(row)) for row in rows}


def _line(row: dict[str, Any]) -> str:
    parts = [f"session {row['pid']}"]
    if row["user"]:
        parts.append(f"of user {row['user']}")
    if row["application"]:
        parts.append(f"({row['application']})")
    if row["state"]:
        parts.append(row["state"])
    if row["seconds"] is not None:
        parts.append(f"in a transaction for {row['seconds']} s")
    return " ".join(parts)


async def lock_out_others(connection: CoreConnection, dsn: str) -> None:
    """Wait until this is the only connection that changes the form of tables, and stay it until it is closed.

    Raises `StartError` after `_OTHER_SECONDS`.
    """
    loop = asyncio.get_running_loop()
    began = said_at = loop.time()
    while not await try_lock_out_others(connection):
        now = loop.time()
        if now - began > _OTHER_SECONDS:
            raise StartError("another process is still migrating or partitioning the database; end it, then try again")
        if now - said_at >= _LOCK_SECONDS:
            said_at = now
            who = "; ".join((await _sessions(dsn, _MIGRATING)).values())
            log.warning("another migration is at work", seconds=round(now - began), held_by=who)
        await asyncio.sleep(_LOOK_SECONDS)


async def try_lock_out_others(connection: CoreConnection) -> bool:
    """Do the same without a wait; return False if another connection does it at present."""
    return bool((await connection.execute(text(f"SELECT pg_try_advisory_lock({_LOCK})"))).scalar_one())
