"""One transaction on either kind of database, for commands that are not the service."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, NullPool, create_engine

from receiver.settings import Settings
from receiver.storage.sqlite.connection import configure

T = TypeVar("T")
_LOCK_SECONDS = 10.0
"""How long it waits for a lock that the service holds while it writes."""


async def in_transaction(settings: Settings, work: Callable[[Connection], T]) -> T:
    """Run `work` in a transaction that may write; return its result. Raises `StartError` and the driver's errors."""
    if settings.is_sqlite:
        return in_transaction_on_file(settings.sqlite_path, work)
    from receiver.storage.postgresql.connecting import connected

    async with connected(settings.database_url, command_seconds=None) as connection:
        await connection.exec_driver_sql("BEGIN")
        result = await connection.run_sync(work)
        await connection.exec_driver_sql("COMMIT")
        return result


def in_transaction_on_file(path: Path, work: Callable[[Connection], T], *, lock_seconds: float = _LOCK_SECONDS) -> T:
    """Do the same on a SQLite file; `lock_seconds` bounds the wait for a lock that another process holds."""

    def opened() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=lock_seconds, isolation_level=None)
        configure(connection, writes=True)
        return connection

    # DDL is transactional too as long as the driver does not commit by itself: AUTOCOMMIT and BEGIN.
    engine = create_engine("sqlite://", creator=opened, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            result = work(connection)
            connection.exec_driver_sql("COMMIT")
            return result
    finally:
        engine.dispose()
