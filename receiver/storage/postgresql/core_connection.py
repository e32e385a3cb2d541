"""SQLAlchemy's connections for who awaits: the little of `sqlalchemy.ext.asyncio` that is needed here.

That package imports the ORM, of which the service uses nothing: it would be a tenth of the memory of a process.
What both do is the same: the synchronous connection runs in a greenlet, which is left whenever the driver awaits.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import Connection, CursorResult, Engine, Executable, PoolProxiedConnection, create_engine
from sqlalchemy.util import greenlet_spawn

T = TypeVar("T")
Given = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
"""The parameters of a statement, or those of each time that it is to be run."""


class CoreConnection:
    """A connection; the methods do what those of `sqlalchemy.Connection` of the same names do, and are awaited."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def execute(self, statement: Executable, parameters: Given = None) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement; its rows are there when this returns."""
        return await greenlet_spawn(self._connection.execute, statement, parameters)

    async def exec_driver_sql(self, statement: str) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement as it is written."""
        return await greenlet_spawn(self._connection.exec_driver_sql, statement)

    async def run_sync(self, work: Callable[[Connection], T]) -> T:
        """Run synchronous code on the connection; return its result."""
        return await greenlet_spawn(work, self._connection)

    async def get_raw_connection(self) -> PoolProxiedConnection:
        """Return the pool's connection, whose `driver_connection` is that of asyncpg."""
        return await greenlet_spawn(lambda: self._connection.connection)

    async def execution_options(self, **options: Any) -> None:
        """Set options for the statements from now on."""
        await greenlet_spawn(lambda: self._connection.execution_options(**options))

    async def invalidate(self) -> None:
        """Give up the connection beneath, which may be broken."""
        await greenlet_spawn(self._connection.invalidate)

    async def close(self) -> None:
        """Give the connection back to its pool, or close it."""
        await greenlet_spawn(self._connection.close)


class CoreEngine:
    """An engine, whose connections `connect` makes; the keywords are those of `sqlalchemy.create_engine`."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], **options: Any) -> None:
        self.sync_engine: Engine = create_engine(
            "postgresql+asyncpg://",
            creator=lambda: self.sync_engine.dialect.loaded_dbapi.connect(async_creator_fn=connect),
            **options,
        )

    async def open(self) -> CoreConnection:
        """Return a connection, which the caller closes."""
        return CoreConnection(await greenlet_spawn(self.sync_engine.connect))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[CoreConnection]:
        """Yield a connection. It is closed before the context ends, also where the caller is cancelled meanwhile."""
        connection = await self.open()
        try:
            yield connection
        finally:
            await _finished(asyncio.ensure_future(connection.close()))

    async def dispose(self) -> None:
        """Close the connections that are not in use."""
        await greenlet_spawn(self.sync_engine.dispose)


async def _finished(closing: "asyncio.Future[None]") -> None:
    """Wait for the end of what may not be left half done; be cancelled only then."""
    cancelled: asyncio.CancelledError | None = None
    while not closing.done():
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    closing.result()
