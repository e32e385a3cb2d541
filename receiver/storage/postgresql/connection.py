"""The writer's connection to PostgreSQL: one connection, replaced when it is lost.

Why a lost answer to COMMIT needs care: when the connection breaks between sending COMMIT and receiving the answer, the
transaction may be on disk or not. Reporting a failure for one that is on disk would be wrong: the client's error says
that nothing was stored, so it repeats its request; and `after_commit` does not run, so deliveries that were inserted
already leased to this process wait for the end of their lease. Reporting success for one that was lost would break the
promise that what is acknowledged is on disk.

So the connection asks the server as soon as it can be reached again (`_was_committed`), by two facts that the
transaction left: PostgreSQL's own number for it, and the id of a row that it inserted (`CommitEvidence`). The number
alone does not suffice, see `_find_outcome`. A transaction that inserted no task, event or delivery leaves no such
evidence and is reported as failed: what it wrote can be written a second time.
"""

import asyncio

import asyncpg
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncConnection

from receiver.errors import StorageUnavailable
from receiver.storage.postgresql import errors
from receiver.storage.postgresql.own_sessions import mark_as_writer
from receiver.storage.postgresql.server import core_engine
from receiver.storage.postgresql.transaction import CommitEvidence, PostgreSQLTransaction
from receiver.telemetry import get_logger

log = get_logger("storage.postgresql.connection")

_OUTCOME_SECONDS = 10.0
"""How long to ask for the outcome of a commit whose answer was lost."""
_OUTCOME_INTERVAL_SECONDS = 0.1
"""How long to wait before asking again."""
_LOCKS = {"lock_timeout": "250ms"}
"""Longer than a transaction of another process of ours holds a lock, unless its disk is slow. A wait for a lock that
lasts longer sets the writes that need it apart; they do not fail because of it."""
_BEGIN_BRIEF = "BEGIN; SET LOCAL lock_timeout = '50ms'"


class PostgreSQLConnection:
    """The one connection of this process that writes."""

    def __init__(self, dsn: str) -> None:
        self._engine = core_engine(dsn, writes=True, settings=_LOCKS, poolclass=NullPool)
        self._core: AsyncConnection | None = None
        self._driver: asyncpg.Connection | None = None
        self._transaction: PostgreSQLTransaction | None = None
        self._is_suspect = False

    async def begin(self, *, is_brief: bool = False) -> PostgreSQLTransaction:
        """Begin a transaction, on a new connection if the last one broke. Raises `StorageUnavailable`."""
        self._transaction = None
        try:
            core, driver = await self._connected()
            await driver.execute(_BEGIN_BRIEF if is_brief else "BEGIN")
        except Exception as error:
            self._is_suspect = True
            raise (self.unavailable(error) or error) from error
        self._transaction = PostgreSQLTransaction(core, driver)
        return self._transaction

    async def commit(self) -> None:
        """Commit; return when the transaction is on disk. Raises `StorageUnavailable` if it is not.

        If the answer to COMMIT is lost, the outcome is looked up on the server as soon as it can be reached.
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
        """Return whether another process's write caused the error."""
        return errors.is_conflict(error)

    def is_locked(self, error: Exception) -> bool:
        """Return whether a row or table that a statement needs was locked by another session for too long."""
        return errors.is_locked(error)

    def unavailable(self, error: Exception) -> StorageUnavailable | None:
        """Return the error for the client if the database is at fault; None if the statement or its values are."""
        if isinstance(error, StorageUnavailable):
            return error
        if errors.is_locked(error) or not errors.is_unavailable(error):
            return None
        self._is_suspect = True  # a new connection may reach a server that can be written to
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
            await mark_as_writer(self._driver)
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
                log.debug("broken connection not closed", error=type(error).__name__)

    async def _was_committed(self) -> bool:
        """Return whether the transaction is on disk; False also if that cannot be found out in `_OUTCOME_SECONDS`."""
        evidence = self._transaction.evidence if self._transaction is not None else None
        self._is_suspect = True
        if evidence is None:  # what it wrote can be written a second time
            return False
        try:
            async with asyncio.timeout(_OUTCOME_SECONDS):
                # No event tells when a server can be reached again.
                while (is_committed := await self._find_outcome(evidence)) is None:  # noqa: ASYNC110
                    await asyncio.sleep(_OUTCOME_INTERVAL_SECONDS)
        except Exception as error:
            log.warning("commit outcome unknown", error=type(error).__name__)
            return False
        log.warning("commit answer lost", committed=is_committed)
        return is_committed

    async def _find_outcome(self, evidence: CommitEvidence) -> bool | None:
        """Return whether the transaction is on disk; None if the server cannot be reached, or is still committing it.

        The transaction's status is only asked in order to wait while it is in progress. Its end is decided by the row:
        a server that crashed before the commit was on disk, or a standby that was promoted without it, has forgotten
        the transaction and gives its number to another one, which may be reported as committed.
        """
        try:
            _, driver = await self._connected()
            status = await driver.fetchval("SELECT pg_xact_status($1::text::xid8)", evidence.transaction)
            if status == "in progress":
                return None
            found = await driver.fetchval(f"SELECT true FROM {evidence.table} WHERE uid = $1::uuid", evidence.uid)
        except Exception as error:
            self._is_suspect = True
            if not errors.is_unavailable(error):
                raise
            return None
        return bool(found)
