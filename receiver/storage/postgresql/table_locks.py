"""Finds tables of Ringback on PostgreSQL that another session keeps from being written to."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import TextClause, text

from receiver.errors import StorageUnavailable
from receiver.storage.tables import deliveries, events, subscriptions, tasks

OLD_SECONDS = 2.0
_TABLES = [table.name for table in (tasks, events, deliveries, subscriptions)]


def table_locks() -> TextClause:
    """Return the query for sessions that hold, or wait for, a lock with which others cannot write.

    A wait counts as well: every later session waits behind it. A lock of under `OLD_SECONDS` does not.
    """
    return text(
        "SELECT named.name, held.pid FROM unnest(CAST(:tables AS text[])) AS named(name) JOIN pg_locks AS held "
        "ON held.locktype = 'relation' AND held.relation = to_regclass(named.name) "
        "LEFT JOIN pg_stat_activity AS session ON session.pid = held.pid "
        "WHERE held.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND held.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') "
        "AND coalesce(session.xact_start < clock_timestamp() - make_interval(secs => :seconds), true)"
    ).bindparams(tables=_TABLES, seconds=OLD_SECONDS)


def refuse_locked(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise `StorageUnavailable` if the query found a session."""
    for row in rows:
        reason = f"the table {row['name']} is locked by session {row['pid']} of the database"
        raise StorageUnavailable("a table is locked by another session of the database", reason=reason)
