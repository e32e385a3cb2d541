"""A writer's connection to PostgreSQL: one connection, replaced when it is lost.

Why a missing answer to COMMIT needs care: the transaction may be on disk or not. Reporting a failure for one that is on
disk would be wrong: the client's error says that nothing was stored, so it repeats its request; and `after_commit` does
not run, so deliveries that were inserted already leased to this process wait for the end of their lease. Reporting
success for one that was lost would break the promise that what is acknowledged is on disk.

So the server is asked for the outcome (`receiver.storage.postgresql.lost_commit`). For as long as `PATIENCE_SECONDS`
since the COMMIT the writer waits for that, and then knows; after that "not known" is an answer of its own
(`OutcomeUnknown`), the asking goes on in the background, and the writer continues on a new connection. Commits that are
held for a reason that does not pass, such as a standby that is gone, would leave one more open connection each: with
`_MOST_LOST` of them no other transaction is begun.
"""

import asyncio
from typing import Any

import asyncpg
from sqlalchemy import NullPool

from receiver.errors import OutcomeUnknown, StorageUnavailable, Unavailable
from receiver.storage.postgresql import errors
from receiver.storage.postgresql.commit_evidence import Evidence
from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.postgresql.lost_commit import LostCommit, Session, session_of
from receiver.storage.postgresql.optimistic import OptimisticTransaction
from receiver.storage.postgresql.own_sessions import mark_as_writer
from receiver.storage.postgresql.server import core_engine
from receiver.storage.postgresql.transaction import PostgreSQLTransaction
from receiver.telemetry.log import get_logger

log = get_logger("storage.postgresql.connection")

PATIENCE_SECONDS = 10.0
"""How long a commit may take, the search for its outcome included, before its outcome is reported as unknown."""
_MOST_LOST = 4
_NO_TIMEOUT_SECONDS = 86400.0
"""The driver's own time-out would ask the server to cancel the COMMIT, which then does not wait for its standby."""
_SETTINGS = {
    # Longer than a transaction of another process of ours holds a lock, unless its disk is slow. A wait for a lock that
    # lasts longer sets the writes that need it apart; they do not fail because of it.
    "lock_timeout": "250ms",
    # It would end a COMMIT's wait for a standby, and the server would then report a commit that the standby lacks. The
    # statements before have short waits, and the driver's bound.
    "statement_timeout": "0",
    # A plan is kept that was made while a table, or its newest partition, was empty or small. It has to be good when it
    # is not: all that is written for each webhook and delivery finds its rows by keys.
    "enable_seqscan": "off",
}
_BEGIN_BRIEF = "BEGIN; SET LOCAL lock_timeout = '50ms'"


class PostgreSQLConnection:
    """A connection that writes. A process has one for most of its writes (`is_main`), and one for heavy ones."""

    def __init__(self, dsn: str, *, is_main: bool = True) -> None:
        self._dsn = dsn
        self._is_main = is_main
        self._engine = core_engine(dsn, writes=True, settings=_SETTINGS, poolclass=NullPool)
        self._core: CoreConnection | None = None
        self._driver: asyncpg.Connection | None = None
        self._transaction: PostgreSQLTransaction | None = None
        self._mixed: set[str] = set()
        self._session: Session | None = None
        self._is_suspect = False
        self._lost: set[asyncio.Task[None]] = set()
        """The searches for outcomes that are not known yet."""

    async def begin(self, *, is_brief: bool = False) -> PostgreSQLTransaction:
        """Begin a transaction, on a new connection if the last one broke. Raises `StorageUnavailable`."""
        self._begin()
        try:
            core, driver = await self._connected()
            await driver.execute(_BEGIN_BRIEF if is_brief else "BEGIN")
        except Exception as error:
            self._is_suspect = True
            raise (self.unavailable(error) or error) from error
        self._transaction = PostgreSQLTransaction(core, driver)
        return self._transaction

    async def begin_optimistic(self) -> OptimisticTransaction:
        """Begin a transaction that takes no locks; its commit may raise `NotOptimistic`. Raises `StorageUnavailable`.

        The server knows nothing of it yet.
        """
        self._begin()
        try:
            _, driver = await self._connected()
        except Exception as error:
            self._is_suspect = True
            raise (self.unavailable(error) or error) from error
        self._transaction = transaction = OptimisticTransaction(driver, self._mixed)
        return transaction

    def _begin(self) -> None:
        self._transaction = None
        if len(self._lost) >= _MOST_LOST:
            raise StorageUnavailable(
                f"the database has not confirmed {_MOST_LOST} earlier writes yet; nothing was stored, try again"
            )

    async def commit(self) -> None:
        """Commit; return when the transaction is on disk. Raises `StorageUnavailable` if it is not.

        If that is not known after `PATIENCE_SECONDS`, or cannot be found out, it raises `OutcomeUnknown`, whose `later`
        returns or raises the same as this.
        """
        assert self._transaction is not None  # noqa: S101 - `begin` came before
        until = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        transaction = self._transaction
        committing = asyncio.create_task(transaction.commit(_NO_TIMEOUT_SECONDS))
        await asyncio.wait({committing}, timeout=PATIENCE_SECONDS)
        if not committing.done() or errors.is_answer_missing(committing):
            await self._find_outcome(committing, until)
        elif not _evidence_of(transaction).confirms(committing):
            committing.result()  # raises the server's refusal, if it is one
            transaction.refuse()

    async def rollback(self) -> None:
        """Undo the transaction, if one is open."""
        if self._driver is None or self._driver.is_closed():
            return
        try:
            if self._driver.is_in_transaction():
                await self._driver.execute("ROLLBACK")
        except Exception:
            self._is_suspect = True

    def is_conflict(self, error: BaseException) -> bool:
        """Return whether another process's write caused the error."""
        return errors.is_conflict(error)

    def is_locked(self, error: BaseException) -> bool:
        """Return whether a row or table that a statement needs was locked by another session for too long."""
        return errors.is_locked(error)

    def unavailable(self, error: BaseException) -> Unavailable | None:
        """Return the error for the client if the database is at fault; None if the statement or its values are."""
        if isinstance(error, Unavailable):
            return error
        if errors.is_locked(error) or not errors.is_unavailable(error):
            return None
        self._is_suspect = True  # a new connection may reach a server that can be written to
        return errors.unavailable(error, "cannot be written to", "nothing was stored, try again")

    async def aclose(self) -> None:
        """Close the connection, and give up asking for outcomes that are not known yet."""
        for asking in self._lost:
            asking.cancel()
        await asyncio.gather(*self._lost, return_exceptions=True)
        await self._drop()
        await self._engine.dispose()

    async def _connected(self) -> tuple[CoreConnection, asyncpg.Connection]:
        if self._is_suspect or self._driver is None or self._driver.is_closed():
            await self._drop()
        if self._core is None or self._driver is None:
            self._core = await self._engine.open()
            self._driver = (await self._core.get_raw_connection()).driver_connection
            assert self._driver is not None  # noqa: S101 - just made
            self._session = await session_of(self._driver)
            await mark_as_writer(self._driver, is_main=self._is_main)
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

    async def _find_outcome(self, committing: "asyncio.Task[Any]", until: float) -> None:
        """Wait until the outcome is known, as far as the patience allows. Returns and raises as `commit` does."""
        assert self._core is not None  # noqa: S101 - `begin` came before
        assert self._session is not None  # noqa: S101
        assert self._transaction is not None  # noqa: S101
        log.warning("commit answer missing", broken=committing.done())
        lost = LostCommit(self._dsn, self._session, _evidence_of(self._transaction), committing, self._core)
        self._core = self._driver = None  # they are the search's from now on
        asking = asyncio.create_task(lost.outcome())
        self._lost.add(asking)
        asking.add_done_callback(self._lost.discard)
        left = until - asyncio.get_running_loop().time()
        done, _ = await asyncio.wait({asking}, timeout=max(0.0, left))
        if not done:
            raise OutcomeUnknown(later=asking)
        asking.result()


def _evidence_of(transaction: PostgreSQLTransaction) -> Evidence:
    return transaction if isinstance(transaction, OptimisticTransaction) else transaction.evidence
