"""The writer's connection to PostgreSQL: one connection, made again when it is lost."""

import asyncio

import asyncpg
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncConnection

from receiver.errors import StorageUnavailable
from receiver.storage.postgresql import errors
from receiver.storage.postgresql.server import core_engine
from receiver.storage.postgresql.transaction import PostgreSQLTransaction, Trace
from receiver.telemetry import get_logger

log = get_logger("storage.postgresql.connection")

_OUTCOME_SECONDS = 10.0
_OUTCOME_LOOK_SECONDS = 0.1
"""How long, and how often, the outcome of a commit is asked for whose answer was lost."""


class PostgreSQLConnection:
    """The one connection of this process that writes."""

    def __init__(self, dsn: str) -> None:
        self._engine = core_engine(dsn, writes=True, poolclass=NullPool)
        self._core: AsyncConnection | None = None
        self._driver: asyncpg.Connection | None = None
        self._transaction: PostgreSQLTransaction | None = None
        self._is_suspect = False

    async def begin(self) -> PostgreSQLTransaction:
        """Begin a transaction, on a new connection if the last one was lost. Raises `StorageUnavailable`."""
        self._transaction = None
        try:
            core, driver = await self._connected()
            await driver.execute("BEGIN")
        except Exception as error:
            self._is_suspect = True
            raise (self.unavailable(error) or error) from error
        self._transaction = PostgreSQLTransaction(core, driver)
        return self._transaction

    async def commit(self) -> None:
        """Return when the transaction is on disk. Raises `StorageUnavailable` if it is not.

        If the answer to the commit itself is lost, the server is asked what became of it as soon as it is back.
        """
        assert self._driver is not None  # noqa: S101 - `begin` came before
        try:
            await self._driver.execute("COMMIT")
        except Exception as error:
            if not errors.is_unavailable(error) or not await self._was_committed():
                raise

    async def rollback(self) -> None:
        """Undo the transaction, if one is open."""
        if self._driver is None or self._driver.is_closed():
            return
        try:
            if self._driver.is_in_transaction():
                await self._driver.execute("ROLLBACK")
        except Exception:
            self._is_suspect = True

    def is_conflict(self, error: Exception) -> bool:
        """Say whether another process's write was first."""
        return errors.is_conflict(error)

    def unavailable(self, error: Exception) -> StorageUnavailable | None:
        """Return the error for the client if it is the database's fault and not an item's."""
        if isinstance(error, StorageUnavailable):
            return error
        if not errors.is_unavailable(error):
            return None
        self._is_suspect = True  # the next one may find a server that can be written to
        return errors.unavailable(error, "cannot be written to")

    async def aclose(self) -> None:
        """Close the connection."""
        await self._drop()
        await self._engine.dispose()

    async def _connected(self) -> tuple[AsyncConnection, asyncpg.Connection]:
        if self._is_suspect or self._driver is None or self._driver.is_closed():
            await self._drop()
        if self._core is None or self._driver is None:
            self._core = await self._engine.connect()
            self._driver = (await self._core.get_raw_connection()).driver_connection
            assert self._driver is not None  # noqa: S101 - just made
            self._is_suspect = False
        return self._core, self._driver

    async def _drop(self) -> None:
        core, driver, self._core, self._driver = self._core, self._driver, None, None
        if driver is not None:
            driver.terminate()
        if core is not None:
            try:
                await core.invalidate()
                await core.close()
            except Exception as error:
                log.debug("a broken connection did not close", error=type(error).__name__)

    async def _was_committed(self) -> bool:
        """Ask what became of the transaction, for a while; False if it is not known to be on disk."""
        trace = self._transaction.trace if self._transaction is not None else None
        self._is_suspect = True
        if trace is None:  # it wrote nothing that could not be written again
            return False
        try:
            async with asyncio.timeout(_OUTCOME_SECONDS):
                # No event tells when a server is back.
                while (is_there := await self._is_there(trace)) is None:  # noqa: ASYNC110
                    await asyncio.sleep(_OUTCOME_LOOK_SECONDS)
        except Exception as error:
            log.warning("the outcome of a commit is not known", error=type(error).__name__)
            return False
        log.warning("the answer to a commit was lost", committed=is_there)
        return is_there

    async def _is_there(self, trace: Trace) -> bool | None:
        """Say whether what a transaction wrote is on disk; None if that cannot be told yet."""
        try:
            _, driver = await self._connected()
            if await driver.fetchval("SELECT pg_xact_status($1::text::xid8)", trace.number) == "in progress":
                return None
            # Not "committed" alone: a server that crashed, or took another's place, gives a number that was lost again.
            found = await driver.fetchval(f"SELECT true FROM {trace.table} WHERE uid = $1::uuid", trace.uid)
        except Exception as error:
            self._is_suspect = True
            if not errors.is_unavailable(error):
                raise
            return None
        return bool(found)
