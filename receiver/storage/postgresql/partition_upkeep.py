"""What partitioned tables need from time to time: the next partition before it is used, and empty ones dropped.

One process does it at a time. Where a table is in use all the time, it is left to the next time.
"""

from datetime import timedelta

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from receiver.clock import utc_now
from receiver.errors import StartError
from receiver.storage.postgresql.connecting import connected
from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.postgresql.errors import driver_error
from receiver.storage.postgresql.locked_tables import with_locked_tables
from receiver.storage.postgresql.migrating import try_lock_out_others
from receiver.storage.postgresql.partitioning import check_keys, range_for
from receiver.storage.postgresql.partitions import (
    BOUND,
    DIVIDED,
    Divided,
    Partition,
    add_partition,
    analyze,
    is_empty,
    is_partitioned,
    newest_key,
    partitions_of,
)
from receiver.telemetry.log import get_logger

log = get_logger("storage.postgresql.partition_upkeep")

_SESSION = {
    "lock_timeout": "2s",
    # To detach a partition the server asks whether a key refers to a row of it, while others wait. It has no row: asked
    # from its side, by the index, that takes no time, whatever the statistics say of the rows that it had.
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
}
ARE_NEEDED = (
    "SELECT 1 FROM pg_class WHERE relkind = 'p' AND relname = ANY($1::text[]) "
    "AND relnamespace = current_schema()::regnamespace "
    f"UNION ALL SELECT 1 FROM pg_constraint WHERE conname = '{BOUND}' LIMIT 1"
)
"""Finds a row if the tables `$1` need `keep_partitions`."""
_HAS_BOUND = text("SELECT count(*) FROM pg_constraint WHERE conrelid = to_regclass(:name) AND conname = :bound")


class PartitionsKept(Struct, frozen=True):
    """The partitions that were made and dropped, by their names."""

    made: list[str]
    dropped: list[str]


async def keep_partitions(dsn: str, period: timedelta) -> PartitionsKept:
    """Make the next partitions, for about a `period` each, and drop empty ones of the past, where tables have them.

    Does nothing while another process does it, or migrates. What fails is logged, and left to the next time.
    """
    kept = PartitionsKept([], [])
    try:
        async with connected(dsn, _SESSION, command_seconds=None) as connection:
            if not await try_lock_out_others(connection):
                return kept
            for divided in DIVIDED:
                if await is_partitioned(connection, divided.table):
                    await _make_next(connection, dsn, divided, period, kept)
                else:
                    await _remove_bound(connection, dsn, divided)
            await check_keys(connection)
            for divided in reversed(DIVIDED):  # what refers to others comes first
                if await is_partitioned(connection, divided.table):
                    await _drop_empty(connection, dsn, divided, kept)
    except StartError as error:
        log.warning("partitions not kept", reason=error.message)
    except DBAPIError as error:
        log.warning("partitions not kept", reason=str(driver_error(error)).partition("\n")[0])
    return kept


async def _make_next(
    connection: CoreConnection, dsn: str, divided: Divided, period: timedelta, kept: PartitionsKept
) -> None:
    """Make the next partition as soon as the last one is in use."""
    if not await is_empty(connection, divided.default):
        log.warning("rows outside the partitions", table=divided.table, partition=divided.default)
    last = (await partitions_of(connection, divided.table))[-1:]
    if last and await newest_key(connection, divided.numbered) < last[0].first:
        return
    size = await range_for(connection, divided, period, utc_now())

    async def make() -> str:
        # With the tables locked no transaction has a greater key than this. The default partition may have lower ones.
        newest = await newest_key(connection, divided.numbered)
        first = max(newest + 1, last[0].end) if last else newest + 1
        return await add_partition(connection, divided, divided.default, first, first + size)

    name = await with_locked_tables(connection, dsn, make)
    await analyze(connection, divided)
    kept.made.append(name)
    log.info("partition made", table=divided.table, partition=name)


async def _drop_empty(connection: CoreConnection, dsn: str, divided: Divided, kept: PartitionsKept) -> None:
    newest = await newest_key(connection, divided.numbered)
    for partition in await partitions_of(connection, divided.table):
        if partition.end > newest or not await _is_unused(connection, divided, partition):
            continue
        # Leaves no page of dead rows to be looked through while the tables are locked.
        await connection.exec_driver_sql(f"VACUUM {partition.name}")

        async def drop(partition: Partition = partition) -> bool:
            if not await _is_unused(connection, divided, partition):
                return False
            await connection.exec_driver_sql(f"ALTER TABLE {divided.table} DETACH PARTITION {partition.name}")
            await connection.exec_driver_sql(f"DROP TABLE {partition.name}")
            return True

        if await with_locked_tables(connection, dsn, drop):
            kept.dropped.append(partition.name)
            log.info("partition dropped", table=divided.table, partition=partition.name)


async def _is_unused(connection: CoreConnection, divided: Divided, partition: Partition) -> bool:
    """Return whether a partition has no row, and will get none: a delivery that is there may be sent again."""
    if not await is_empty(connection, partition.name):
        return False
    of_others = f"id >= {partition.first} AND id < {partition.end}"
    return divided.numbered == divided.table or await is_empty(connection, divided.numbered, of_others)


async def _remove_bound(connection: CoreConnection, dsn: str, divided: Divided) -> None:
    """Remove what a partitioning left that was interrupted: it would refuse rows some day."""
    if not (await connection.execute(_HAS_BOUND, {"name": divided.table, "bound": BOUND})).scalar_one():
        return
    statement = f"ALTER TABLE {divided.table} DROP CONSTRAINT IF EXISTS {BOUND}"
    await with_locked_tables(connection, dsn, lambda: connection.exec_driver_sql(statement))
    log.warning("partitioning was interrupted", table=divided.table, advice="run `ringback database partition` again")
