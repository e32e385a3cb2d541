"""The writer's connection to SQLite: one connection, whose statements run on the event loop's own thread.

A statement on pages that are in memory takes microseconds, less than passing it to a thread would. Only a commit waits
for the disk. On a slow disk it runs in a thread of its own, while the loop continues and the next batch collects; on a
quick disk it runs on the loop, because the thread would take longer than the commit.

What a COMMIT that fails means. It appends the transaction's pages to the WAL, the last one marked as a commit, waits
until they are on the disk, and then makes them visible. If a page cannot be written (the disk is full or broken), the
mark is not there, and SQLite has rolled the transaction back or leaves it open, and `rollback` ends it: nothing was
stored. If only the wait for the disk fails, all pages may be in the file. This process does not show them, and its next
commit overwrites them, but if it dies before that, the next start finds the mark: the outcome is unknown.
"""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import StaticPool, create_engine

from receiver.errors import OutcomeUnknown, StorageUnavailable, Unavailable
from receiver.storage.sqlite.reserve import Reserve, is_full
from receiver.storage.sqlite.transaction import SQLiteTransaction
from receiver.storage.sqlite.values import adapt_values, read_document, write_document

PAGE_BYTES = 8192
QUICK_COMMIT_SECONDS = 0.0015
"""Commits that take less than this on average hold up the loop for less time than passing them to a thread does."""
_LARGE = 1024 * 1024
"""A commit of documents with this many bytes runs in the thread, whatever others take."""
_PROBE_EVERY = 32
"""How many commits run in the thread before one runs on the loop, to measure the disk again: a time measured in the
thread includes the wait for the interpreter's lock."""
_LONGEST_SAMPLE_SECONDS = 4 * QUICK_COMMIT_SECONDS
"""The most that one commit counts for in the average: a slow one, such as one that checkpoints the WAL, does not
predict the next."""
_BUSY_RETRY_SECONDS = 0.005
_WAIT_FAILED = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})
"""The errors of a commit whose pages were all written, and perhaps not kept by the disk."""
CHECKPOINT_PAGES = 1000
"""A commit checkpoints when the WAL has this many pages; see `receiver.storage.sqlite.upkeep` for a larger one."""
_WAL_KEPT_BYTES = 64 * 1024 * 1024
"""To this size the WAL's file is cut when it starts again from its beginning."""


def configure(connection: Any, *, writes: bool) -> None:
    """Configure a connection. One that writes gets WAL, `synchronous=FULL`, foreign keys and 8 KB pages."""
    if writes:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA journal_size_limit={_WAL_KEPT_BYTES}")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-8192")
    else:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA cache_size=-1024")  # small, because every commit invalidates it


def open_unchanged(path: Path) -> sqlite3.Connection:
    """Open a database only to read it: neither its file is changed, nor is one made beside it.

    Raises `sqlite3.OperationalError`, also if it does not exist.
    """
    is_in_use = any(path.with_name(path.name + ending).exists() for ending in ("-wal", "-journal"))
    options = "mode=ro" if is_in_use else "mode=ro&immutable=1"
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?{options}", uri=True, timeout=5, isolation_level=None)


class SQLiteConnection:
    """The one connection that writes. `busy_seconds` is how long to wait for a lock that another process holds."""

    def __init__(self, path: Path, *, busy_seconds: float = 5.0) -> None:
        self._engine = create_engine(
            "sqlite://",
            poolclass=StaticPool,
            creator=lambda: _open(path),
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,  # errors are logged, and values may not be
            json_serializer=write_document,
            json_deserializer=read_document,
        )
        self._core = self._engine.connect()
        self._driver: sqlite3.Connection = self._core.connection.driver_connection  # type: ignore[assignment]
        self._thread = ThreadPoolExecutor(1, "ringback-commit")
        self._busy_seconds = busy_seconds
        self.reserve = Reserve(path)
        self._has_room_again = False
        self._is_free = True
        self._transaction = SQLiteTransaction(self._core, self._driver)
        self._commit_seconds = 0.0
        self._commits_in_thread = 0

    async def begin(self, *, is_brief: bool = False) -> SQLiteTransaction:
        """Begin a transaction that holds the write lock. Raises `StorageUnavailable` if another process keeps it."""
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
                self._transaction = SQLiteTransaction(self._core, self._driver)
                return self._transaction

    async def commit(self) -> None:
        """Return when the transaction is on disk. Raises `StorageUnavailable` if it is not.

        Raises `OutcomeUnknown` if the disk did not confirm what was written.
        """
        try:
            is_quick = self._commit_seconds < QUICK_COMMIT_SECONDS or self._commits_in_thread >= _PROBE_EVERY
            if is_quick and self._transaction.size < _LARGE:
                self._commit_here()
            else:
                self._commits_in_thread += 1
                await asyncio.get_running_loop().run_in_executor(self._thread, self._driver.commit)
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", None) in _WAIT_FAILED:
                raise OutcomeUnknown from error
            if is_full(error):
                raise  # `unavailable` makes room
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
        """Run a query on committed rows; return None while a transaction is open or its commit is in flight.

        Such a query is fastest here: this connection's page cache has the rows that were just written, while each
        commit invalidates the cache of every other connection.
        """
        return self._driver.execute(sql, parameters).fetchall() if self._is_free else None

    def is_conflict(self, error: BaseException) -> bool:
        """Return whether the same batch may succeed now: the disk was full, and the reserve has made room.

        SQLite has one writer, so no other process's write can conflict.
        """
        has_room, self._has_room_again = self._has_room_again, False
        return has_room

    def is_locked(self, error: BaseException) -> bool:
        """Return False: SQLite's one lock is waited for when a transaction begins."""
        return False

    def unavailable(self, error: BaseException) -> Unavailable | None:
        """Return the error for the client if the database is at fault; None if the statement or its values are.

        None as well if the disk was full and has room again: `is_conflict` then returns True.
        """
        cause = getattr(error, "orig", None) or error
        if is_full(cause) and self.reserve.spend():
            self._has_room_again = True
            return None
        if isinstance(cause, Unavailable):
            return cause
        return (
            _unavailable(cause)
            if isinstance(cause, sqlite3.OperationalError) and not _is_wrong_statement(cause)
            else None
        )

    async def aclose(self) -> None:
        """Close the connection."""
        self._is_free = False
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        self._core.close()
        self._engine.dispose()


def _open(path: Path) -> sqlite3.Connection:
    # The commit's thread uses the connection too, but never at the same time: while a commit is in flight nothing else
    # runs on it.
    adapt_values()
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    configure(connection, writes=True)
    return connection


def _is_busy(error: sqlite3.Error) -> bool:
    return "locked" in str(error) or "busy" in str(error)


def _is_wrong_statement(error: sqlite3.Error) -> bool:
    """Return whether the statement itself is wrong: a bug of ours, which trying again does not fix."""
    return any(words in str(error) for words in ("no such", "syntax error", "has no column"))


def _unavailable(error: Exception) -> StorageUnavailable:
    message = "the database cannot be written to at present; nothing was stored, try again"
    return StorageUnavailable(message, reason=str(error))
