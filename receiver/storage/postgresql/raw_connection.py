"""A connection to PostgreSQL for single statements without SQLAlchemy, opened when needed and replaced when broken."""

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg

from receiver.storage.postgresql.errors import is_unavailable, unavailable
from receiver.storage.postgresql.server import connect_raw


class RawConnection:
    """One connection that runs one statement at a time, each in a transaction of its own."""

    def __init__(self, dsn: str, *, writes: bool) -> None:
        self._dsn = dsn
        self._writes = writes
        self._lock = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None

    async def fetch(self, sql: str, *arguments: Any) -> Sequence[Any]:
        """Run a statement; return its rows. Raises `StorageUnavailable`.

        A connection that was open may have broken since it was last used, so the statement is tried once more on a new
        one. It must therefore be safe to run twice.
        """
        async with self._lock:
            was_open = self._connection is not None
            try:
                return await self._fetch(sql, arguments)
            except Exception as error:
                if not is_unavailable(error):
                    raise
                self._drop()
                if not was_open:
                    raise unavailable(error, "does not answer") from error
            try:
                return await self._fetch(sql, arguments)
            except Exception as error:
                self._drop()
                raise (unavailable(error, "does not answer") if is_unavailable(error) else error) from error

    async def aclose(self) -> None:
        """Close the connection."""
        async with self._lock:
            self._drop()

    async def _fetch(self, sql: str, arguments: Sequence[Any]) -> Sequence[Any]:
        if self._connection is None:
            self._connection = await connect_raw(self._dsn, writes=self._writes)
        rows: Sequence[Any] = await self._connection.fetch(sql, *arguments)
        return rows

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
