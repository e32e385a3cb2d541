"""Reads SQLite: Core queries in a few threads, one switch to a thread for each query; hot queries on the event loop.

Reading a few rows by key from pages that are in memory takes microseconds. Passing the query to a thread and the rows
back takes a hundred times as long.
"""

import asyncio
import sqlite3
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Engine,
    Executable,
    bindparam,
    column,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import OperationalError

from receiver.errors import StorageUnavailable
from receiver.storage.hot import HotPlan, HotQuery, HotRow
from receiver.storage.sqlite.connection import SQLiteConnection, configure
from receiver.storage.sqlite.snapshot import SQLiteSnapshot, snapshot_of
from receiver.storage.sqlite.values import decoder_of, read_document, write_document
from receiver.storage.transaction import Values

_CONNECTIONS = 4
_KEYS: BindParameter[str] = bindparam("keys")


class SQLiteReader:
    """Reads committed rows. Hot queries run on the writer's connection whenever no transaction is open on it."""

    def __init__(self, path: Path, writes: SQLiteConnection) -> None:
        self._engine = _engine(path)
        self._snapshots = _engine(path)
        self._threads = ThreadPoolExecutor(_CONNECTIONS, "ringback-read")
        self._writes = writes
        self._hot = sqlite3.connect(path, timeout=0, isolation_level=None)
        configure(self._hot, writes=False)
        self._plans: dict[HotQuery, HotPlan] = {}

    async def read(self, statement: Executable, parameters: Values | None = None) -> list[dict[str, Any]]:
        """Run a query; return its rows by column name. Raises `StorageUnavailable`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, statement, parameters)

    async def read_by_keys(self, query: HotQuery, keys: Collection[int]) -> list[HotRow]:
        """Run a query of the hot path; return its rows by table. Raises `StorageUnavailable`."""
        plan = self._plans.get(query)
        if plan is None:
            plan = self._plans[query] = HotPlan(query, sqlite.dialect(), _among_keys, decoder_of)
        parameters = (write_document(list(keys)),)
        try:
            rows = self._writes.fetch(plan.sql, parameters)
            if rows is None:
                rows = self._hot.execute(plan.sql, parameters).fetchall()
        except sqlite3.OperationalError as error:
            raise _unavailable(error) from error
        return [plan.row(row) for row in rows]

    def snapshot(self) -> AbstractAsyncContextManager[SQLiteSnapshot]:
        """Open a snapshot for several queries. Raises `StorageUnavailable`."""
        return snapshot_of(self._snapshots)

    async def aclose(self) -> None:
        """Close every connection."""
        for engine in (self._engine, self._snapshots):
            await asyncio.get_running_loop().run_in_executor(self._threads, engine.dispose)
        self._threads.shutdown()
        self._hot.close()

    def _read(self, statement: Executable, parameters: Values | None) -> list[dict[str, Any]]:
        try:
            with self._engine.connect() as connection:
                return [dict(row) for row in connection.execute(statement, parameters).mappings()]
        except OperationalError as error:
            raise _unavailable(error.orig) from error


def _engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=_CONNECTIONS,
        max_overflow=0,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        json_serializer=write_document,
        json_deserializer=read_document,
    )
    event.listen(engine, "connect", lambda connection, _record: configure(connection, writes=False))
    return engine


def _among_keys(key: ColumnElement[Any]) -> ColumnElement[bool]:
    return key.in_(select(column("value")).select_from(func.json_each(_KEYS).table_valued("value")))


def _unavailable(error: BaseException | None) -> StorageUnavailable:
    return StorageUnavailable("the database cannot be read at present; try again", reason=str(error))
