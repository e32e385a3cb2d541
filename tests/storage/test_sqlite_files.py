"""SQLite's files while another program reads them and while the disk is full: the WAL shrinks, nothing is lost."""

import resource
import sqlite3
from collections.abc import Iterator, MutableMapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from receiver.errors import StorageUnavailable
from receiver.storage.database import Database
from receiver.storage.sqlite import reserve as reserves
from receiver.storage.sqlite import upkeep
from receiver.storage.sqlite.reserve import Reserve
from receiver.storage.tables import tasks
from tests.fakes.databases import settings_in
from tests.storage.rows import add_organization, add_tasks, task_row

pytestmark = pytest.mark.sqlite_only("concerns SQLite's own files")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return settings_in(tmp_path).sqlite_path


@pytest.fixture(autouse=True)
async def _organization(database: Database) -> None:
    assert await add_organization(database) == 1


def wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


async def grow(database: Database, tasks: int) -> None:
    """Store tasks of 100 KB each, one a commit."""
    for _ in range(tasks):
        await add_tasks(database, task_row(input={"prompt": "x" * 100_000}))


@contextmanager
def file_limit(most: int) -> Iterator[None]:
    """Let no file of this process grow beyond `most` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_wal_that_a_reader_holds_is_reported_and_shrinks_when_the_reader_has_left(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[MutableMapping[str, Any]]
) -> None:
    monkeypatch.setattr(upkeep, "LARGE_BYTES", 500_000)
    monkeypatch.setattr(upkeep, "CHECKPOINT_PAGES", 10)
    assert database.upkeep is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM task").fetchone()
        await grow(database, 20)
        await database.upkeep.tend_wal()
        large = wal(path).stat().st_size
        assert large > 2_000_000
        (warning,) = [record for record in logged if record["event"] == "wal cannot shrink"]
        assert "end it" in warning["advice"]
    await grow(database, 1)
    await database.upkeep.tend_wal()
    assert wal(path).stat().st_size < large / 4
    await grow(database, 1)
    assert len(await database.read(select(tasks.c.id))) == 22


async def test_a_check_writes_to_the_disk(database: Database, path: Path) -> None:
    await database.check()
    with closing(sqlite3.connect(path)) as reader:
        ((number,),) = reader.execute("PRAGMA user_version").fetchall()
    assert number > 0


async def test_a_disk_without_room_is_not_ready_stores_nothing_and_is_ready_again(
    database: Database, path: Path
) -> None:
    assert database.upkeep is not None
    await grow(database, 1)
    with file_limit(wal(path).stat().st_size):
        with pytest.raises(StorageUnavailable, match="try again"):
            await grow(database, 1)
        with pytest.raises(StorageUnavailable, match="full"):
            await database.check()
    Reserve(path).make()
    await database.upkeep.tend_wal()
    assert len(await database.read(select(tasks.c.id))) == 1


async def test_a_wal_that_fills_the_disk_shrinks_when_its_reader_has_left_however_small_it_is(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserves, "RESERVE_BYTES", 65_536)
    assert database.upkeep is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM task").fetchone()
        await grow(database, 30)
        with file_limit(full := wal(path).stat().st_size), pytest.raises(StorageUnavailable):
            await grow(database, 1)
        await database.upkeep.tend_wal()
        assert wal(path).stat().st_size >= full
    with file_limit(full + path.stat().st_size):
        await database.upkeep.tend_wal()
        assert wal(path).stat().st_size < full / 4
        database.upkeep.reserve.make()
        await grow(database, 1)
    assert len(await database.read(select(tasks.c.id))) == 31


async def test_while_the_disk_is_full_only_what_is_essential_is_stored(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserves, "RESERVE_BYTES", 65_536)
    assert database.upkeep is not None
    reserve = database.upkeep.reserve
    reserve.make()
    beside = path.with_name(f"{path.name}.reserve")
    assert beside.stat().st_size == 65_536
    assert reserve.spend()
    assert not beside.exists()
    with pytest.raises(StorageUnavailable, match="disk is full"):
        await database.check()
    with pytest.raises(StorageUnavailable, match="disk is full"):
        await add_tasks(database, task_row())
    row = task_row()
    await database.writer.run(lambda tx: tx.insert_tasks([row]), bounded=False)
    reserve.make()
    await add_tasks(database, task_row())
    assert len(await database.read(select(tasks.c.id))) == 2
