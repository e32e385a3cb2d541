"""The writer's connection to SQLite: one connection, its statements on the loop's own thread.

A statement on pages that are in memory takes microseconds, less than handing it to a thread. The commit waits for
the disk: where that is slow it has a thread to itself, and the loop goes on collecting the next batch meanwhile.
"""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import StaticPool, create_engine

from receiver.errors import StorageUnavailable
from receiver.storage.sqlite.transaction import SQLiteTransaction
from receiver.storage.sqlite.values import read_document, write_document

PAGE_BYTES = 8192
QUICK_COMMIT_SECONDS = 0.0015
"""A disk that commits faster than this on average costs the loop less than the way to a thread and back."""
_PROBE_EVERY = 32
"""Commits in the thread before one is made on the loop, to see how fast the disk is by now: in the thread that cannot
be told from the wait for the interpreter's lock."""
_LONGEST_SAMPLE_SECONDS = 4 * QUICK_COMMIT_SECONDS
"""One slow commit, such as one that moves the log into the file, says little of the next one."""
_BUSY_RETRY_SECONDS = 0.005


def configure(connection: Any, *, writes: bool) -> None:
    """Set what every connection needs; one that writes: WAL, `synchronous=FULL`, foreign keys, 8 KB pages."""
    if writes:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-8192")
    else:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA cache_size=-1024")  # every commit puts it out of date


class SQLiteConnection:
    """The one connection that writes. `busy_seconds` is how long another process's lock is waited for."""

    def __init__(self, path: Path, *, busy_seconds: float = 5.0) -> None:
        self._engine = create_engine(
            "sqlite://",
            poolclass=StaticPool,
            creator=lambda: _open(path),
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,  # errors are logged, and values are not for the log
            json_serializer=write_document,
            json_deserializer=read_document,
        )
        self._core = self._engine.connect()
        self._driver: sqlite3.Connection = self._core.connection.driver_connection  # type: ignore[assignment]
        self._thread = ThreadPoolExecutor(1, "ringback-commit")
        self._busy_seconds = busy_seconds
        self._is_free = True
        self._commit_seconds = 0.0
        self._commits_in_thread = 0

    async def begin(self) -> "SQLiteTransaction":
        """Begin a transaction that holds the write lock. Raises `StorageUnavailable` if another keeps it."""
        deadline = asyncio.get_running_loop().time() + self._busy_seconds
        while True:
            try:
                self._driver.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or asyncio.get_running_loop().time() >= deadline:
                    raise _unavailable(error) from error
                await asyncio.sleep(_BUSY_RETRY_SECONDS)
            else:
                self._is_free = False
                return SQLiteTransaction(self._core, self._driver)

    async def commit(self) -> None:
        """Return when the transaction is on disk. Raises `StorageUnavailable` if it is not."""
        try:
            if self._commit_seconds < QUICK_COMMIT_SECONDS or self._commits_in_thread >= _PROBE_EVERY:
                self._commit_here()
            else:
                self._commits_in_thread += 1
                await asyncio.get_running_loop().run_in_executor(self._thread, self._driver.commit)
        except sqlite3.OperationalError as error:
            raise _unavailable(error) from error
        self._is_free = True

    def _commit_here(self) -> None:
        started = time.perf_counter()
        self._driver.commit()
        took = min(time.perf_counter() - started, _LONGEST_SAMPLE_SECONDS)
        self._commit_seconds += (took - self._commit_seconds) / 8
        self._commits_in_thread = 0

    async def rollback(self) -> None:
        """Undo the transaction, if one is open."""
        if self._driver.in_transaction:
            self._driver.rollback()
        self._is_free = True

    def fetch(self, sql: str, parameters: Sequence[Any]) -> list[Any] | None:
        """Run a query for what is committed; None while there is a transaction, or its commit is on its way.

        What was written just now is in this connection's memory, and any other one's is out of date by it.
        """
        return self._driver.execute(sql, parameters).fetchall() if self._is_free else None

    def is_conflict(self, error: Exception) -> bool:
        """Say whether another writer was first. SQLite has one writer."""
        return False

    def unavailable(self, error: Exception) -> StorageUnavailable | None:
        """Return the error for the client if it is the database's fault and not an item's."""
        cause = getattr(error, "orig", None) or error
        if isinstance(cause, StorageUnavailable):
            return cause
        return _unavailable(cause) if isinstance(cause, sqlite3.OperationalError) and not _is_ours(cause) else None

    async def aclose(self) -> None:
        """Close the connection."""
        self._is_free = False
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        self._core.close()
        self._engine.dispose()


def _open(path: Path) -> sqlite3.Connection:
    # The commit's thread uses it too, but never at the same time: between BEGIN and the end of the commit
    # nothing else is run on it.
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    configure(connection, writes=True)
    return connection


def _is_busy(error: sqlite3.Error) -> bool:
    return "locked" in str(error) or "busy" in str(error)


def _is_ours(error: sqlite3.Error) -> bool:
    """A wrong statement is our fault, and no reason to ask anybody to come again."""
    return any(words in str(error) for words in ("no such", "syntax error", "has no column"))


def _unavailable(error: Exception) -> StorageUnavailable:
    return StorageUnavailable(f"the database cannot be written to now ({error}); nothing was stored, try again")
