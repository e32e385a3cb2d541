"""One snapshot of SQLite for many queries: a read transaction on a connection and a thread of its own."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Executable
from sqlalchemy.exc import OperationalError

from receiver.errors import StorageUnavailable


class SQLiteSnapshot:
    """Reads the rows as they were when the snapshot was made."""

    def __init__(self, connection: Connection, threads: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._threads = threads

    async def read(self, statement: Executable) -> list[dict[str, Any]]:
        """Run a query; return its rows by column name. Raises `StorageUnavailable`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, statement)

    def _read(self, statement: Executable) -> list[dict[str, Any]]:
        try:
            return [dict(row) for row in self._connection.execute(statement).mappings()]
        except OperationalError as error:
            message = f"the database cannot be read at present ({error.orig}); try again"
            raise StorageUnavailable(message) from error


@asynccontextmanager
async def snapshot_of(engine: Engine) -> AsyncIterator[SQLiteSnapshot]:
    """Open a snapshot on a connection of `engine`, which is for snapshots alone. Raises `StorageUnavailable`.

    A query that runs when the context is left, because its caller was cancelled, is interrupted: while a snapshot is
    open, the WAL cannot start over.
    """
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(1, "ringback-snapshot")
    try:
        connection = await loop.run_in_executor(threads, _begin, engine)
        try:
            yield SQLiteSnapshot(connection, threads)
        finally:
            driver: Any = connection.connection.driver_connection
            driver.interrupt()
            await asyncio.shield(loop.run_in_executor(threads, _end, connection))
    finally:
        threads.shutdown(wait=False)


def _begin(engine: Engine) -> Connection:
    try:
        connection = engine.connect()
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").fetchall()  # the first read fixes the snapshot
    except OperationalError as error:
        message = f"the database cannot be read at present ({error.orig}); try again"
        raise StorageUnavailable(message) from error
    return connection


def _end(connection: Connection) -> None:
    connection.exec_driver_sql("ROLLBACK")
    connection.close()
