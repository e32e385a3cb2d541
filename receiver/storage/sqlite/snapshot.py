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
    """Reads the rows as they were when the snapshot was made. All but `interrupt` runs in its thread, in order."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, "ringback-snapshot")

    async def begin(self) -> None:
        """Make the snapshot. Raises `StorageUnavailable`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._begin)

    async def read(self, statement: Executable) -> list[dict[str, Any]]:
        """Run a query; return its rows by column name. Raises `StorageUnavailable`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, statement)

    async def end(self) -> None:
        """Interrupt the query that runs, if its caller did not wait for it, and close the connection."""
        connection = self._connection
        if connection is not None:
            driver: Any = connection.connection.driver_connection
            driver.interrupt()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
        self._thread.shutdown(wait=False)

    def _begin(self) -> None:
        try:
            self._connection = self._engine.connect()
            self._connection.exec_driver_sql("BEGIN")
            # The first read fixes what all of them see.
            self._connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").fetchall()
        except OperationalError as error:
            raise _unavailable(error) from error

    def _read(self, statement: Executable) -> list[dict[str, Any]]:
        assert self._connection is not None  # noqa: S101 - `begin` has returned
        try:
            return [dict(row) for row in self._connection.execute(statement).mappings()]
        except OperationalError as error:
            raise _unavailable(error) from error

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()  # which rolls back


@asynccontextmanager
async def snapshot_of(engine: Engine) -> AsyncIterator[SQLiteSnapshot]:
    """Open a snapshot on a connection of `engine`, which is for snapshots alone. Raises `StorageUnavailable`.

    While a snapshot is open, the WAL cannot start over: it is closed also where its caller is cancelled.
    """
    snapshot = SQLiteSnapshot(engine)
    try:
        await snapshot.begin()
        yield snapshot
    finally:
        await asyncio.shield(asyncio.ensure_future(snapshot.end()))


def _unavailable(error: OperationalError) -> StorageUnavailable:
    return StorageUnavailable("the database cannot be read at present; try again", reason=str(error.orig))
