"""Partitions a database that is in use: each table becomes the first partition of a new one with its name.

No row is copied. Before the change, a constraint shows that all rows belong to the first partition, so that PostgreSQL
need not read them while it has the table to itself; afterwards the keys that refer to it are made again, and checked
beside the service. What an interrupted one has done stays, and is gone on with: a table is partitioned or it is not.
"""

from datetime import datetime, timedelta

from sqlalchemy import text

from receiver.clock import utc_now
from receiver.errors import StartError
from receiver.storage.compatibility import present_schema
from receiver.storage.maintenance import Partitioned
from receiver.storage.postgresql.connecting import connected
from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.postgresql.locked_tables import told_in_one_line, with_locked_tables
from receiver.storage.postgresql.migrating import lock_out_others
from receiver.storage.postgresql.partitions import (
    BOUND,
    DIVIDED,
    LEAST_ROWS,
    Divided,
    add_default,
    add_partition,
    analyze,
    is_partitioned,
    like,
    newest_key,
    partitions_of,
    rows_since,
)
from receiver.storage.postgresql.table_forms import form_of, run_all
from receiver.telemetry.log import get_logger

log = get_logger("storage.postgresql.partitioning")

_SESSION = {"lock_timeout": "2s"}
_UNCHECKED = text(
    "SELECT conrelid::regclass::text AS table, conname AS name "
    "FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid "
    "WHERE contype = 'f' AND NOT convalidated AND conparentid = 0 AND relnamespace = current_schema()::regnamespace"
)


async def partition_server(dsn: str, period: timedelta) -> list[Partitioned]:
    """Partition the tables of `DIVIDED` that are not yet; `period` is what a partition is for.

    Raises `StartError` if the schema is not this version's, or the tables stay in use; a table is then as it was.
    """
    async with connected(dsn, _SESSION, command_seconds=None) as connection, told_in_one_line("partitioned"):
        await lock_out_others(connection, dsn)
        if not (await connection.run_sync(present_schema)).is_newest():
            raise StartError("the schema is not of this version: run `ringback migrate` first")
        found = [await _partition(connection, dsn, divided, period) for divided in DIVIDED]
        await check_keys(connection)
        for divided in DIVIDED:
            await analyze(connection, divided)
        return found


async def _partition(connection: CoreConnection, dsn: str, divided: Divided, period: timedelta) -> Partitioned:
    await check_keys(connection)  # a partition of a later table takes over only those that are
    if await is_partitioned(connection, divided.table):
        return Partitioned(divided.table, False, (await partitions_of(connection, divided.table))[0].end)
    size = await range_for(connection, divided, period, utc_now())
    end = await newest_key(connection, divided.numbered) + size + 1

    async def bind() -> None:
        await connection.exec_driver_sql(f"ALTER TABLE {divided.table} DROP CONSTRAINT IF EXISTS {BOUND}")
        bound = f"ADD CONSTRAINT {BOUND} CHECK ({divided.column} < {end}) NOT VALID"
        await connection.exec_driver_sql(f"ALTER TABLE {divided.table} {bound}")

    try:
        await with_locked_tables(connection, dsn, bind)
        await connection.exec_driver_sql(f"ALTER TABLE {divided.table} VALIDATE CONSTRAINT {BOUND}")
        await with_locked_tables(connection, dsn, lambda: _replace(connection, divided, end, size))
    except BaseException:
        await _unbind(connection, dsn, divided.table)
        raise
    log.info("table partitioned", table=divided.table, first_until=end)
    return Partitioned(divided.table, True, end)


async def range_for(connection: CoreConnection, divided: Divided, period: timedelta, now: datetime) -> int:
    """Return how many row keys a partition is for: as many as there were rows in the last period, and not too few."""
    return max(LEAST_ROWS, await rows_since(connection, divided.numbered, now - period))


async def _replace(connection: CoreConnection, divided: Divided, end: int, size: int) -> None:
    """Put a new, partitioned table in the place of the present one, which becomes its first partition."""
    table, first = divided.table, divided.name_from(0)
    form = await form_of(connection, table)
    statements = [
        *form.without_referring(),
        *form.renamed_to(first),
        f"CREATE TABLE {table} {like(first)} PARTITION BY RANGE ({divided.column})",
        *form.given(divided_by=divided.column),
        f"ALTER TABLE {table} ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO ({end})",
        f"ALTER TABLE {first} DROP CONSTRAINT {BOUND}",
    ]
    await run_all(connection, statements)
    await add_default(connection, divided, first)
    await add_partition(connection, divided, first, end, end + size)
    await run_all(connection, form.referring_again(checked=False))


async def check_keys(connection: CoreConnection) -> None:
    """Check the keys that were made again, beside the service."""
    for each in (await connection.execute(_UNCHECKED)).all():
        await connection.exec_driver_sql(f"ALTER TABLE {each.table} VALIDATE CONSTRAINT {each.name}")


async def _unbind(connection: CoreConnection, dsn: str, table: str) -> None:
    """Remove the constraint of a try that failed: it would refuse rows later. A worker tries it again if need be."""
    try:
        await with_locked_tables(
            connection,
            dsn,
            lambda: connection.exec_driver_sql(f"ALTER TABLE IF EXISTS {table} DROP CONSTRAINT IF EXISTS {BOUND}"),
        )
    except Exception as error:
        log.warning("bound not removed", table=table, error=type(error).__name__)
