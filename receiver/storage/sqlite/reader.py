"""Reading SQLite: Core on a few connections with threads of their own, hot queries on the loop's own thread.

A few rows from pages that are in memory take microseconds; handing them to a thread and back takes a hundred times
as long.
"""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, BindParameter, Boolean, ColumnElement, Executable, bindparam, column, event, func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.types import TypeEngine

from models.columns import Moment
from receiver.errors import StorageUnavailable
from receiver.storage.hot import Decoder, HotPlan, HotQuery, HotRow
from receiver.storage.sqlite.connection import configure
from receiver.storage.sqlite.values import read_document, read_moment, write_document

_CONNECTIONS = 4
_KEYS: BindParameter[str] = bindparam("keys")


class SQLiteReader:
    """Reads what is committed."""

    def __init__(self, path: Path) -> None:
        self._engine = _engine(path)
        self._hot = sqlite3.connect(path, timeout=0, isolation_level=None)
        self._hot.execute("PRAGMA query_only=ON")
        self._plans: dict[HotQuery, HotPlan] = {}

    async def read(self, statement: Executable) -> list[dict[str, Any]]:
        """Run a query; return its rows by column name. Raises `StorageUnavailable`."""
        try:
            async with self._engine.connect() as connection:
                return [dict(row) for row in (await connection.execute(statement)).mappings()]
        except OperationalError as error:
            raise _unavailable(error.orig) from error

    async def read_by_keys(self, query: HotQuery, keys: Collection[int]) -> list[HotRow]:
        """Run a query of the hot path; return its rows by table. Raises `StorageUnavailable`."""
        plan = self._plans.get(query)
        if plan is None:
            plan = self._plans[query] = HotPlan(query, sqlite.dialect(), _among_keys, _decoder)
        try:
            with closing(self._hot.cursor()) as cursor:
                rows = cursor.execute(plan.sql, (write_document(list(keys)),)).fetchall()
        except sqlite3.OperationalError as error:
            raise _unavailable(error) from error
        return [plan.row(row) for row in rows]

    async def aclose(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
        self._hot.close()


def _engine(path: Path) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        pool_size=_CONNECTIONS,
        max_overflow=0,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        json_serializer=write_document,
        json_deserializer=read_document,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        configure(cursor, writes=False)
        cursor.close()

    return engine


def _among_keys(key: ColumnElement[Any]) -> ColumnElement[bool]:
    return key.in_(select(column("value")).select_from(func.json_each(_KEYS).table_valued("value")))


def _decoder(kind: TypeEngine[Any]) -> Decoder | None:
    if isinstance(kind, JSON):
        return read_document
    if isinstance(kind, Moment):
        return read_moment
    return bool if isinstance(kind, Boolean) else None


def _unavailable(error: BaseException | None) -> StorageUnavailable:
    return StorageUnavailable(f"the database cannot be read now ({error}); try again")
