"""Connections to PostgreSQL, with asyncpg directly and through SQLAlchemy.

A server, a role, a database or the URL may have defaults for a session that weaken what the service promises, so each
session sets what it relies on. "On disk" is `synchronous_commit`: never below `on`, and a stronger `remote_apply`
stays. What follows from READ COMMITTED (a statement sees what was committed before it began) is relied on by every
lock and by `receiver.storage.open_writers`. Waits have bounds of their own: for a lock, and for a statement, a little
before the driver gives up, so that the server does not go on with it alone. `default_transaction_read_only` is left as
it is: providers of servers set it on purpose, for example when the disk is full, and it is answered with 503.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import asyncpg
import orjson
from asyncpg.connect_utils import SessionAttribute
from sqlalchemy import event

from receiver.storage.postgresql.core_connection import CoreEngine
from receiver.storage.postgresql.location import read_location
from receiver.storage.postgresql.values import NUL, write_document, write_text

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 15.0
"""After this many seconds without a response the connection is given up as broken."""
LOCK_SECONDS = 1.0
"""How long a statement waits for a lock that another session holds. The writer waits for less."""
_APPLICATION = {"application_name": "ringback"}
_SESSION = {
    "timezone": "UTC",
    "array_nulls": "on",  # arrays are given as text, with nulls
    "default_transaction_isolation": "read committed",
    "statement_timeout": "14s",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "jit": "off",  # it takes longer to compile these statements than to run them
    # A process that hangs in the middle of a transaction may not keep rows locked for the others.
    "idle_in_transaction_session_timeout": "20s",
}
_BY_KEYS = {
    # Planning such a statement takes longer than running it, so it is planned once. That may happen while the tables
    # are still small, where a sequential scan looks cheap; the plan has to be good when they are large.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
}
_UNBOUNDED = {"idle_session_timeout": "0", "transaction_timeout": "0"}
_SET_WHERE_KNOWN = """
SELECT set_config(name, value, false) FROM (VALUES
    ('synchronous_commit', CASE current_setting('synchronous_commit')
        WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END),
    {settings}
) AS wanted(name, value) WHERE current_setting(name, true) IS NOT NULL
"""
"""Sets what older servers have too, and one thing by its present value. `set_config` also outlasts a reload of the
server's configuration. It is done after connecting, because a pooler refuses settings of the session before that."""
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


async def connect(
    dsn: str,
    *,
    writes: bool = True,
    settings: Mapping[str, str] = _NO_SETTINGS,
    command_seconds: float | None = COMMAND_SECONDS,
) -> asyncpg.Connection:
    """Open a connection of the driver's own; with `writes`, to a server that accepts writes.

    `settings` are the session's, `command_seconds` bounds each statement; None for no bound, on the server either.

    A connection never goes to a standby, even if the URL names one and the primary is down: a standby is behind, maybe
    for as long as the connection lasts, and does not know which transactions are open on the primary.
    """
    location = read_location(dsn)
    unbounded = _UNBOUNDED if command_seconds is not None else {**_UNBOUNDED, "statement_timeout": "0"}
    connection: asyncpg.Connection = await asyncpg.connect(
        location.dsn,
        timeout=location.connect_seconds or CONNECT_SECONDS,
        command_timeout=command_seconds,
        server_settings={**_APPLICATION, **location.settings},
        ssl=location.tls,
        max_cacheable_statement_size=0,  # none: `one_statement` may be longer than what the driver would keep
        target_session_attrs=SessionAttribute.read_write if writes else SessionAttribute.primary,
    )
    async with _closed_if_it_fails(connection):
        await connection.execute(_setting({**_SESSION, **unbounded, **settings}))
        await connection.set_type_codec("uuid", encoder=str, decoder=str, schema="pg_catalog", format="text")
    return connection


async def connect_raw(dsn: str, *, writes: bool = True) -> asyncpg.Connection:
    """Open a connection to use without SQLAlchemy; documents are decoded as SQLAlchemy would.

    It is for statements that find their rows by keys: each is planned once, to use indexes.
    """
    connection = await connect(dsn, writes=writes, settings=_BY_KEYS)
    async with _closed_if_it_fails(connection):
        await connection.set_type_codec("jsonb", encoder=str, decoder=orjson.loads, schema="pg_catalog", format="text")
    return connection


def _setting(settings: Mapping[str, str]) -> str:
    """Return the statement that sets settings of the session, all of which are constants of this package."""
    return _SET_WHERE_KNOWN.format(settings=", ".join(f"('{name}', '{value}')" for name, value in settings.items()))


@asynccontextmanager
async def _closed_if_it_fails(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Close a new connection if it cannot be prepared, also because the caller is cancelled: no other code knows it."""
    try:
        yield
    except BaseException:
        connection.terminate()
        raise


def core_engine(
    dsn: str,
    *,
    writes: bool,
    settings: Mapping[str, str] = _NO_SETTINGS,
    command_seconds: float | None = COMMAND_SECONDS,
    **pool: Any,
) -> CoreEngine:
    """Return a SQLAlchemy engine; each statement is a transaction of its own, except after an explicit BEGIN."""
    engine = CoreEngine(
        lambda: connect(dsn, writes=writes, settings=settings, command_seconds=command_seconds),
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,  # errors are logged, and values may not be
        json_serializer=write_document,
        json_deserializer=orjson.loads,
        **pool,
    )
    event.listen(engine.sync_engine, "before_cursor_execute", _replace_nul, retval=True)
    return engine


def _replace_nul(
    _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, executemany: bool
) -> tuple[str, Any]:
    rows = parameters if executemany else (parameters,)
    if not any(isinstance(value, str) and NUL in value for row in rows for value in row):
        return statement, parameters
    clean = [tuple(write_text(value) if isinstance(value, str) else value for value in row) for row in rows]
    return statement, clean if executemany else clean[0]
