"""One database: where to read, and the writer through which all writes go."""

import sqlite3
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from sqlalchemy import Executable, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from receiver.errors import StorageUnavailable
from receiver.settings import Settings
from receiver.storage.hot import HotQuery, HotReader, HotRow, read_document
from receiver.storage.sqlite import SQLiteConnection, configure
from receiver.storage.writer import Writer

_READERS = 4


class Database:
    """Reads run on a few connections of their own; writes go through `writer`, one commit for many."""

    def __init__(self, engine: AsyncEngine, hot: HotReader, writer: Writer) -> None:
        self._engine = engine
        self._hot = hot
        self.writer = writer

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Open the database that the settings name. Its schema must be there already (`storage.schema`)."""
        writer = Writer(SQLiteConnection(settings.sqlite_path), capacity=settings.writer_queue)
        writer.start()
        return cls(_sqlite_readers(settings.sqlite_path), HotReader(settings.sqlite_path), writer)

    async def read(self, statement: Executable) -> list[dict[str, Any]]:
        """Run a query; return its rows by column name. Raises `StorageUnavailable`."""
        try:
            async with self._engine.connect() as connection:
                return [dict(row) for row in (await connection.execute(statement)).mappings()]
        except OperationalError as error:
            raise StorageUnavailable(f"the database cannot be read now ({error.orig}); try again") from error

    async def read_by_keys(self, query: HotQuery, keys: Collection[int]) -> list[HotRow]:
        """Run a query of the hot path for a few keys; return its rows by table. Raises `StorageUnavailable`."""
        try:
            return self._hot.read(query, keys)
        except sqlite3.OperationalError as error:
            raise StorageUnavailable(f"the database cannot be read now ({error}); try again") from error

    async def aclose(self) -> None:
        """Commit what waits, and close every connection."""
        await self.writer.aclose()
        await self._engine.dispose()
        self._hot.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _sqlite_readers(path: Path) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        pool_size=_READERS,
        max_overflow=0,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=read_document,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        configure(cursor, writes=False)
        cursor.close()

    return engine
