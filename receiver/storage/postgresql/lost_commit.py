"""Finds out what became of a commit whose answer is missing, for as long as that takes.

A commit's answer is missing when the connection broke after COMMIT was sent, or when the server does not answer: it
waits for a standby (`synchronous_standby_names`), it is frozen, or the network lets nothing through. Then the
transaction may be on disk, may get there later, or may be lost.

So the server is asked on another connection: first whether the session that was to commit is still writing, for until
its end nothing can be said; then, when that session has ended, for the evidence that the transaction left. A session is
known by its process's number and the time when it began, which no other session has; the transaction's own number would
not do, because a server that crashed before the commit was on disk, or a standby that was promoted without it, gives
that number to another transaction. A session that still waits for a COMMIT which can no longer arrive, for its
connection is broken, is ended: it holds locks.

Where one statement is the whole transaction (`receiver.storage.postgresql.optimistic`), a session that is not writing
may have it still to come: the statement is somewhere on the way. So nothing is said before the session is gone, and one
that waits for its client is ended, for what it waits for is that statement, or nothing at all.
"""

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Any

import asyncpg
from msgspec import Struct
from sqlalchemy import NullPool, text

from receiver.errors import OutcomeUnknown, StorageUnavailable
from receiver.storage.postgresql import errors
from receiver.storage.postgresql.commit_evidence import Evidence
from receiver.storage.postgresql.core_connection import CoreConnection, CoreEngine
from receiver.storage.postgresql.server import core_engine
from receiver.telemetry.log import get_logger

log = get_logger("storage.postgresql.lost_commit")

_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0
_CLOSE_SECONDS = 1.0

_OWN_SESSION = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_STATE = text(
    "SELECT state, backend_xid IS NOT NULL AS is_writing, wait_event = 'ClientRead' AS is_waiting_for_client "
    "FROM pg_stat_activity WHERE pid = :pid AND backend_start = :began"
)
_END = text("SELECT pg_terminate_backend(:pid)")


class Session(Struct, frozen=True):
    """A connection as the server knows it: its process's number, and when it began."""

    pid: int
    began: datetime


async def session_of(driver: asyncpg.Connection) -> Session:
    """Return the session of a connection."""
    row = await driver.fetchrow(_OWN_SESSION)
    assert row is not None  # noqa: S101 - a session sees itself
    return Session(row["pid"], row["backend_start"])


class LostCommit:
    """A commit whose answer is missing; `committing` is what commits, under way or failed, on the session."""

    def __init__(
        self,
        dsn: str,
        session: Session,
        evidence: Evidence,
        committing: "asyncio.Task[Any]",
        core: CoreConnection,
    ) -> None:
        self._dsn = dsn
        self._session = session
        self._evidence = evidence
        self._committing = committing
        self._core = core

    async def outcome(self) -> None:
        """Return when the transaction is on disk. Raises `StorageUnavailable` if it is not, nor ever will be.

        Raises `OutcomeUnknown` if the transaction has ended and left no evidence.
        """
        engine = core_engine(self._dsn, writes=True, poolclass=NullPool)
        try:
            is_committed = await self._ask_until_known(engine)
        except Exception as error:  # a fault of ours: that the transaction was not committed does not follow from it
            log.error("asking for the outcome of a commit failed", exc_info=error)
            is_committed = None
        finally:
            # In this order: the driver passes a cancelled call on to the server, which would undo a COMMIT under way.
            await _close(self._core)
            self._committing.cancel()
            self._committing.add_done_callback(_retrieved)
            await engine.dispose()
        log.warning("commit outcome known", committed=is_committed)
        if is_committed is None:
            raise OutcomeUnknown
        if not is_committed:
            raise StorageUnavailable("the database lost the write; nothing was stored, try again")

    async def _ask_until_known(self, engine: CoreEngine) -> bool | None:
        wait = _FIRST_WAIT_SECONDS
        while True:
            if self._committing.done() and not errors.is_answer_missing(self._committing):
                return self._evidence.confirms(self._committing)
            try:
                async with engine.connect() as connection:
                    if await self._has_ended(connection):
                        return await self._evidence.find(connection)
            except Exception as error:
                if not errors.is_unavailable(error):
                    raise
            await self._wait(wait)
            wait = min(wait * 1.5, _LONGEST_WAIT_SECONDS)

    async def _wait(self, seconds: float) -> None:
        """Wait before the server is asked again; no longer than until the missing answer comes after all."""
        if self._committing.done():
            await asyncio.sleep(seconds)
        else:
            await asyncio.wait({self._committing}, timeout=seconds)

    async def _has_ended(self, connection: CoreConnection) -> bool:
        session = {"pid": self._session.pid, "began": self._session.began}
        found = (await connection.execute(_STATE, session)).first()
        if found is None or not (found.is_writing or self._evidence.is_whole):
            return True
        if self._evidence.is_whole:
            if found.is_waiting_for_client:
                await connection.execute(_END, {"pid": self._session.pid})
        elif self._committing.done() and str(found.state).startswith("idle in transaction"):
            await connection.execute(_END, {"pid": self._session.pid})
        return False


def _retrieved(committing: "asyncio.Task[Any]") -> None:
    """Mark the error of a COMMIT as seen: its outcome is known by other means."""
    if not committing.cancelled():
        committing.exception()


async def _close(core: CoreConnection) -> None:
    """Close a connection that may be broken, or whose server may be frozen."""
    with suppress(Exception):
        driver = (await core.get_raw_connection()).driver_connection
        if driver is not None:
            driver.terminate()
    with suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await core.invalidate()
            await core.close()
