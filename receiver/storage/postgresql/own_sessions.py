"""Tells the sessions of Ringback that write from all others: each holds a shared advisory lock as long as it lives.

A person in psql, a backup or a report may open a transaction too, and leave it open. What such a session has locked
says nothing about rows that Ringback is about to commit. The name of an application would not tell the two apart: the
URL may set it, and a person may use the same URL. The lock is taken once for each connection, so a transaction costs
nothing more, and every role may read who holds it.
"""

import asyncpg

_CLASS = 0x52494E47
"""The first half of the lock's number: "RING" in ASCII. `receiver.storage.postgresql.migrating` locks another one."""
_MAIN, _OTHER, _LISTENER = 1, 2, 3
"""The second half: of the session that a process writes most with, of its other ones, and of that which listens."""

OPEN_WRITERS = f"""
WITH held AS MATERIALIZED (
    SELECT locktype, relation, mode, granted, pid, virtualtransaction, classid, objid, objsubid FROM pg_locks
    WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT DISTINCT writing.virtualtransaction AS writer FROM held AS writing
WHERE writing.locktype = 'relation' AND writing.relation = to_regclass(:relation) AND writing.granted
AND writing.mode = 'RowExclusiveLock'
AND (
    EXISTS (
        SELECT FROM held AS own WHERE own.pid = writing.pid AND own.locktype = 'advisory'
        AND own.classid = {_CLASS} AND own.objid IN ({_MAIN}, {_OTHER}) AND own.objsubid = 2
    )
    OR EXISTS (SELECT FROM pg_stat_get_activity(writing.pid) AS session WHERE session.application_name = 'ringback')
)
"""
"""The transactions of Ringback's writers that have begun to write `:relation`. A write locks the table until its
transaction ends. The application's name is for processes of a version that does not take the advisory lock yet."""

LIVE_WRITERS = f"""
SELECT count(DISTINCT pid) FROM pg_locks
WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND classid = {_CLASS} AND objid = {_MAIN} AND objsubid = 2 AND granted
"""
"""How many main sessions of Ringback's writers this database has: one for each process that is live."""

IS_ALONE = f"""
SELECT count(*) FILTER (WHERE objid = {_LISTENER}) < 2 AND count(*) FILTER (WHERE objid = {_MAIN}) < 2 FROM pg_locks
WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND classid = {_CLASS} AND objsubid = 2 AND granted
"""
"""Whether no process but the one that asks, which listens, is to get notices. One of a version that takes no lock to
listen is known by its main writer; one of a version that takes none at all is not known, and reads a second late."""


async def mark_as_listener(connection: asyncpg.Connection) -> None:
    """Mark this session as one that listens for notices. It stays so until it ends."""
    await connection.execute(f"SELECT pg_advisory_lock_shared({_CLASS}, {_LISTENER})")


async def mark_as_writer(connection: asyncpg.Connection, *, is_main: bool) -> None:
    """Mark this session as one of Ringback's that write. It stays so until it ends."""
    await connection.execute(f"SELECT pg_advisory_lock_shared({_CLASS}, {_MAIN if is_main else _OTHER})")
