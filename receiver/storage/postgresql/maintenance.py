"""Checks, measures and vacuums a PostgreSQL database."""

from typing import Any

from sqlalchemy import Connection, text

from receiver.storage.maintenance import Compacted, DatabaseSize, Finding, OwnFindings, Severity, TableSize
from receiver.storage.postgresql.connecting import connected
from receiver.storage.postgresql.partitions import DIVIDED
from receiver.storage.tables import tasks

_DANGEROUS = {
    "fsync": "a crash of the machine damages the database",
    "full_page_writes": "a crash of the machine damages the database",
    "autovacuum": "tables grow without bound, and in the end the server stops",
}
"""Settings that are to be on, and what happens if they are off."""
_INVALID_INDEXES = (
    "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indrelid "
    "WHERE NOT indisvalid AND relnamespace = current_schema()::regnamespace"
)
_PARTITIONED = (
    "SELECT relname FROM pg_class WHERE relkind = 'p' AND relname = ANY(CAST(:tables AS text[])) "
    "AND relnamespace = current_schema()::regnamespace ORDER BY relname"
)
_COLLATION = (
    "SELECT datcollversion, pg_database_collation_actual_version(oid) FROM pg_database "
    "WHERE datname = current_database()"
)
_COLLATION_SINCE = 150_000
"""The version from which on a server knows the version of a database's collation."""
_FROZEN_AGE = "SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()"
_OLD_AGE = 1_500_000_000
"""Transactions; at about two thousand million the server accepts no more."""
_STANDBYS = "SELECT count(*), count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')) FROM pg_stat_replication"
_SIZES = (
    "SELECT relname, greatest(reltuples, 0)::bigint, pg_total_relation_size(pg_class.oid) FROM pg_class "
    "WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace ORDER BY relname"
)
_WHOLE = "SELECT pg_database_size(current_database())"
_PATIENT = {"lock_timeout": "30s"}


async def check_server(dsn: str, own: OwnFindings) -> list[Finding]:
    """Check a server's settings and a database, and then with `own` what is in it. Raises `StartError`."""
    async with connected(dsn, _PATIENT, command_seconds=None) as connection:
        return await connection.run_sync(lambda sync: [*_server_findings(sync), *own(sync)])


async def size_on_server(dsn: str) -> DatabaseSize:
    """Return the size of a database. Raises `StartError`."""
    async with connected(dsn, _PATIENT, command_seconds=None) as connection:
        rows = (await connection.execute(text(_SIZES))).all()
        whole = (await connection.execute(text(_WHOLE))).scalar_one()
    return DatabaseSize(whole, None, [TableSize(name, count, size) for name, count, size in rows])


async def vacuum_server(dsn: str) -> Compacted:
    """Vacuum and analyze each of Ringback's tables, beside all that uses them. Raises `StartError`."""
    async with connected(dsn, _PATIENT, command_seconds=None) as connection:
        before = (await connection.execute(text(_WHOLE))).scalar_one()
        for table in tasks.metadata.sorted_tables:
            await connection.exec_driver_sql(f'VACUUM (ANALYZE) "{table.name}"')
        after = (await connection.execute(text(_WHOLE))).scalar_one()
    return Compacted(before, after)


def _server_findings(connection: Connection) -> list[Finding]:
    number = int(_one(connection, "SHOW server_version_num"))
    found = [Finding("server", str(_one(connection, "SHOW server_version")))]
    for name, danger in _DANGEROUS.items():
        is_on = _one(connection, f"SHOW {name}") == "on"
        found.append(
            Finding(name, "on") if is_on else Finding(name, f"off: {danger}", Severity.BAD, f"set {name} = on there")
        )
    found.append(Finding("synchronous_commit", f"{_one(connection, 'SHOW synchronous_commit')} in Ringback's sessions"))
    found.append(_commits(connection))
    found.append(_indexes(connection))
    found += _partitions(connection)
    if number >= _COLLATION_SINCE:
        found.append(_collation(connection))
    age = int(_one(connection, _FROZEN_AGE))
    if age > _OLD_AGE:
        do = "run VACUUM FREEZE, and find out what keeps autovacuum from it"
        found.append(Finding("oldest transaction", f"{age} transactions ago", Severity.BAD, do))
    else:
        found.append(Finding("oldest transaction", f"{age} transactions ago"))
    return found


def _commits(connection: Connection) -> Finding:
    """Check whether commits wait for standbys, and whether there are any to wait for."""
    names = str(_one(connection, "SHOW synchronous_standby_names"))
    standbys, synchronous = connection.execute(text(_STANDBYS)).one()
    if names and not synchronous:
        found = f"wait for a synchronous standby ({names}), and none is connected, so no write will end"
        return Finding("commits", found, Severity.BAD, "connect the standby, or remove it from that setting")
    waits = "wait for a synchronous standby" if names else "are on this server's disk alone when they are answered"
    return Finding("commits", f"{waits}; standbys connected: {standbys}")


def _indexes(connection: Connection) -> Finding:
    invalid = connection.execute(text(_INVALID_INDEXES)).scalars().all()
    if not invalid:
        return Finding("indexes", "valid")
    return Finding("indexes", f"not valid: {', '.join(invalid)}", Severity.BAD, "run REINDEX INDEX on each")


def _partitions(connection: Connection) -> list[Finding]:
    """Check that no row of a partitioned table is where only those belong that have no partition."""
    partitioned = connection.execute(text(_PARTITIONED), {"tables": [each.table for each in DIVIDED]}).scalars().all()
    outside = [
        each.default
        for each in DIVIDED
        if each.table in partitioned and _one(connection, f"SELECT EXISTS (SELECT 1 FROM {each.default})")
    ]
    if outside:
        found = f"rows in {', '.join(outside)}: they have no partition, and are purged as those of a whole table"
        return [Finding("partitions", found, Severity.WARNING)]
    return [Finding("partitions", f"of {', '.join(partitioned)}")] if partitioned else []


def _collation(connection: Connection) -> Finding:
    stored, actual = connection.execute(text(_COLLATION)).one()
    if stored == actual or stored is None:
        return Finding("collation", f"version {stored}" if stored else "without a version")
    found = f"version {stored} when the indexes were built, {actual} now, so text may not be found"
    do = "run REINDEX DATABASE, then ALTER DATABASE ... REFRESH COLLATION VERSION"
    return Finding("collation", found, Severity.BAD, do)


def _one(connection: Connection, query: str) -> Any:
    return connection.execute(text(query)).scalar_one()
