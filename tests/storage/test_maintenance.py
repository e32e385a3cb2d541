"""Checking, measuring and compacting a SQLite file."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from receiver.errors import StartError
from receiver.settings import Settings
from receiver.storage.maintenance import (
    check_database,
    compact_database,
    partition_database,
    size_of_database,
    unite_database,
)
from receiver.storage.schema import migrate
from receiver.storage.sqlite import PAGE_BYTES
from receiver.storage.sqlite.location import lock_database

pytestmark = pytest.mark.sqlite_only("is about a file")


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
async def path(settings: Settings) -> Path:
    """A database with 2 MB of free pages, and some rows."""
    await migrate(settings)
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT "
    execute(
        settings.sqlite_path,
        f"INSERT INTO organization (uid, name, created_at) {rows} 'u' || i, 'o' || i, '2026-01-01 00:00:00.000000' "
        "FROM n",
        "CREATE TABLE purged (content)",
        f"INSERT INTO purged {rows} zeroblob(10000) FROM n",
        "DELETE FROM purged",
    )
    return settings.sqlite_path


async def test_a_file_is_compacted_while_nobody_serves_it(settings: Settings, path: Path) -> None:
    with closing(lock_database(path)), pytest.raises(StartError, match="another Ringback process"):
        await compact_database(settings)
    before = await size_of_database(settings)
    done = await compact_database(settings)
    after = await size_of_database(settings)
    assert done.before - done.after > 1_500_000
    assert (before.free or 0) > 1_500_000
    assert after.free == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list(path.parent.glob("*.compacting*"))
    (organizations,) = [table for table in after.tables if table.table == "organization"]
    assert organizations.rows == 200
    assert all(finding.severity != "bad" for finding in await check_database(settings))


async def test_damage_is_found(settings: Settings, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'organization'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(b"\xff" * PAGE_BYTES)
    findings = await check_database(settings)
    assert any(each.check == "file" and each.severity == "bad" for each in findings)


async def test_a_reference_that_leads_nowhere_is_found(settings: Settings, path: Path) -> None:
    execute(
        path,
        "PRAGMA foreign_keys=OFF",
        "INSERT INTO fan_out (event_id, organization_id, after_subscription_id, until_subscription_id) "
        "VALUES (77, 1, 0, 1)",
    )
    (found,) = [each for each in await check_database(settings) if each.severity == "bad"]
    assert (found.check, "fan_out" in found.found) == ("references", True)


async def test_a_file_has_no_partitions(settings: Settings) -> None:
    for work in (partition_database, unite_database):
        with pytest.raises(StartError, match="SQLite has no partitions"):
            await work(settings)
