"""The writer when the database is locked, full or broken: its callers get a 503, nothing is stored, it continues."""

import asyncio
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import text

from receiver.errors import OutcomeUnknown, StorageUnavailable
from receiver.storage.transaction import Transaction
from tests.storage.test_writer import INSERT, Notes, locked, notes

pytestmark = pytest.mark.sqlite_only("provokes SQLite's own faults")

__all__ = ["notes"]  # the fixture


async def limit_pages(notes: Notes, most: int) -> None:
    """Let the database grow to `most` pages at most: beyond that SQLite fails as on a full disk."""

    async def work(tx: Transaction) -> None:
        await tx.execute(text(f"PRAGMA max_page_count={most}"))

    await notes.writer.run(work)


async def test_a_locked_database_is_unavailable_and_the_writer_continues(notes: Notes) -> None:
    notes.writer.start()
    with locked(notes.path):
        with pytest.raises(StorageUnavailable, match="locked") as caught:
            await notes.writer.write(notes.insert, "lost")
        assert (caught.value.retry_after or 0) >= 1
    assert await notes.writer.write(notes.insert, "kept") == "wrote kept"
    assert notes.on_disk() == ["kept"]


async def test_a_lock_fails_every_write_of_the_batch(notes: Notes) -> None:
    writes = notes.begin("a", "b", "c")
    await asyncio.sleep(0)
    with locked(notes.path):
        notes.writer.start()
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StorageUnavailable] * 3
    assert notes.on_disk() == []


async def test_a_short_lock_is_waited_for(notes: Notes) -> None:
    waiting = Notes(notes.path, busy_seconds=30)
    waiting.writer.start()
    with locked(notes.path) as other:
        (write,) = waiting.begin("delayed")
        await asyncio.sleep(0)
        other.execute("ROLLBACK")
        assert await write == "wrote delayed"
    await waiting.writer.aclose()


async def test_a_full_disk_is_unavailable_and_nothing_is_stored(notes: Notes) -> None:
    notes.writer.start()
    await limit_pages(notes, 4)
    with pytest.raises(StorageUnavailable, match="full"):
        await notes.writer.write(notes.insert, "x" * 200_000)
    assert notes.on_disk() == []
    assert await notes.writer.write(notes.insert, "small") == "wrote small"
    await limit_pages(notes, 1_000_000)
    assert await notes.writer.write(notes.insert, "y" * 200_000)
    assert [len(body) for body in notes.on_disk()] == [5, 200_000]


async def test_a_full_disk_fails_the_whole_batch(notes: Notes) -> None:
    limited = asyncio.create_task(limit_pages(notes, 4))
    writes = notes.begin("small", "x" * 200_000, "also small")
    await asyncio.sleep(0)
    notes.writer.start()
    outcomes = await asyncio.gather(limited, *writes, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StorageUnavailable}
    assert notes.on_disk() == []


async def test_a_commit_that_fails_stores_nothing_and_leaves_no_transaction_open(notes: Notes) -> None:
    notes.writer.start()
    notes.connection.fault = sqlite3.OperationalError("disk I/O error")
    with pytest.raises(StorageUnavailable, match="disk I/O error"):
        await notes.writer.write(notes.insert, "lost")
    notes.connection.fault = None
    assert await notes.writer.write(notes.insert, "kept") == "wrote kept"
    assert notes.on_disk() == ["kept"]


@contextmanager
def no_file_grows_beyond(size: int) -> Iterator[None]:
    """Make every write beyond this size fail, as on a broken disk; for this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_commit_whose_pages_cannot_be_written_stores_nothing_also_for_the_next_start(notes: Notes) -> None:
    notes.writer.start()
    assert await notes.writer.write(notes.insert, "kept") == "wrote kept"
    wal = notes.path.with_name(f"{notes.path.name}-wal")
    with no_file_grows_beyond(wal.stat().st_size + 100):
        with pytest.raises(StorageUnavailable, match="nothing was stored"):
            await notes.writer.write(notes.insert, "lost")
        left = [(path, path.read_bytes()) for path in (notes.path, wal)]  # what a crash at this moment would leave
    copied = notes.path.with_name("copied.db")
    for path, data in left:
        path.with_name(path.name.replace(notes.path.name, copied.name)).write_bytes(data)
    with closing(sqlite3.connect(copied)) as found:
        assert found.execute("SELECT body FROM note").fetchall() == [("kept",)]
    assert notes.on_disk() == ["kept"]
    assert await notes.writer.write(notes.insert, "again") == "wrote again"
    assert notes.on_disk() == ["kept", "again"]


async def test_a_commit_that_the_disk_did_not_confirm_is_unknown(notes: Notes) -> None:
    class Unconfirmed(sqlite3.Connection):
        def commit(self) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

    notes.writer.start()
    inner = notes.connection.inner
    driver, inner._driver = inner._driver, sqlite3.connect(notes.path, factory=Unconfirmed, isolation_level=None)
    with pytest.raises(OutcomeUnknown) as caught:
        await notes.writer.run(lambda _tx: asyncio.sleep(0))
    assert not caught.value.is_pending
    inner._driver.close()
    inner._driver = driver
    assert await notes.writer.write(notes.insert, "kept") == "wrote kept"


async def test_a_wrong_statement_is_not_reported_as_unavailable(notes: Notes) -> None:
    async def wrong(tx: Transaction) -> None:
        await tx.execute(text("INSERT INTO nothing_such VALUES (1)"))

    notes.writer.start()
    with pytest.raises(Exception, match="no such table") as caught:
        await notes.writer.run(wrong)
    assert not isinstance(caught.value, StorageUnavailable)
    await notes.writer.run(lambda tx: tx.execute(INSERT, [{"body": "kept"}]))
    assert notes.on_disk() == ["kept"]
