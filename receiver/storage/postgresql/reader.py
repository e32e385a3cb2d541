"""Reads PostgreSQL: Core queries on a pool of connections, hot queries on a connection of their own."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    BindParameter,
    ColumnElement,
    Executable,
    any_,
    bindparam,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.types import TypeEngine

from receiver.storage.hot import Decoder, HotPlan, HotQuery, HotRow
from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.postgresql.errors import is_locked, is_unavailable, unavailable
from receiver.storage.postgresql.raw_connection import RawConnection
from receiver.storage.postgresql.server import COMMAND_SECONDS, core_engine
from receiver.storage.transaction import Values

CONNECTIONS = 5
_ALONE = {"max_parallel_workers_per_gather": "0"}
"""To start workers of the server takes longer than most of these queries, and takes its cores from the others."""
_ONCE_BY_KEYS = select(*(func.set_config(name, "off", True) for name in ("enable_seqscan", "enable_bitmapscan")))
"""Until the transaction ends, rows are found by keys and in their order: a snapshot is read in ranges of keys, and a
plan that reads a whole table for each of them would be made where the tables have grown since they were analysed."""
_KEYS: BindParameter[Any] = bindparam("keys", type_=ARRAY(BigInteger()))


class PostgreSQLSnapshot:
    """Reads the rows as they were when the snapshot was made."""

    def __init__(self, connection: CoreConnection) -> None:
        self._connection = connection

    async def read(self, statement: Executable) -> list[dict[str, Any]]:
        """Run a query; return its rows by column name. Raises `StorageUnavailable`."""
        try:
            return [dict(row) for row in (await self._connection.execute(statement)).mappings()]
        except Exception as error:
            raise (unavailable(error, "cannot be read") if is_unavailable(error) else error) from error


class PostgreSQLReader:
    """Reads committed rows."""

    def __init__(self, dsn: str) -> None:
        self._engine = core_engine(
            dsn,
            writes=False,
            settings=_ALONE,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=COMMAND_SECONDS,
        )
        self._hot = RawConnection(dsn, writes=False)
        self._plans: dict[HotQuery, HotPlan] = {}

    async def read(self, statement: Executable, parameters: Values | None = None) -> list[dict[str, Any]]:
        """Run a query; return its rows by column name. Raises `StorageUnavailable`."""
        try:
            return await self._read(statement, parameters)
        except Exception as error:
            if not is_unavailable(error):
                raise
            if is_locked(error):  # a second wait for the same lock would only take longer
                raise unavailable(error, "cannot be read") from error
        # A pooled connection may have broken since it was last used; SQLAlchemy has discarded the whole pool by now.
        try:
            return await self._read(statement, parameters)
        except Exception as error:
            raise (unavailable(error, "cannot be read") if is_unavailable(error) else error) from error

    async def read_by_keys(self, query: HotQuery, keys: Collection[int]) -> list[HotRow]:
        """Run a query of the hot path; return its rows by table. Raises `StorageUnavailable`."""
        plan = self._plans.get(query)
        if plan is None:
            plan = self._plans[query] = HotPlan(
                query,
                asyncpg.dialect(),  # type: ignore[no-untyped-call]
                _among_keys,
                _decoder,
            )
        return [plan.row(row) for row in await self._hot.fetch(plan.sql, list(keys))]

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PostgreSQLSnapshot]:
        """Open a snapshot for several queries. Raises `StorageUnavailable`."""
        await self.read(select(literal(1)))  # a broken connection is replaced here, not in the midst of the snapshot
        try:
            connection = await self._engine.open()
        except Exception as error:
            raise (unavailable(error, "cannot be read") if is_unavailable(error) else error) from error
        try:
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            snapshot = PostgreSQLSnapshot(connection)
            await snapshot.read(_ONCE_BY_KEYS)  # begins the transaction
            yield snapshot
        finally:
            await connection.close()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._hot.aclose()
        await self._engine.dispose()

    async def _read(self, statement: Executable, parameters: Values | None) -> list[dict[str, Any]]:
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(statement, parameters)).mappings()]


def _among_keys(key: ColumnElement[Any]) -> ColumnElement[bool]:
    return key == any_(_KEYS)


def _decoder(_kind: TypeEngine[Any]) -> Decoder | None:
    return None  # the connection's codecs have decoded the values
