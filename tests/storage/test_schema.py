"""The schema on SQLite: the migrations produce what the models declare, all of it or nothing."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

import migrations
import models
from receiver.errors import StartError
from receiver.settings import Settings
from receiver.storage import schema
from receiver.storage.schema import current_revision, migrate
from receiver.storage.sqlite import PAGE_BYTES

pytestmark = pytest.mark.sqlite_only("reads SQLite's own catalogue, and the copy beside the file")

ORGANIZATION = "INSERT INTO organization (uid, name, created_at) VALUES ('a', 'kept', '2026-01-01 00:00:00.000000')"


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(sql).fetchall()
        connection.commit()
        return rows


def structure(path: Path) -> dict[str, Any]:
    """Return all that SQLite's catalogue has of each table: columns, keys, indexes with conditions, AUTOINCREMENT."""
    tables = [name for (name,) in query(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        name: {
            "columns": sorted(row[1:] for row in query(path, f"PRAGMA table_info({name})")),
            "foreign keys": sorted(row[2:] for row in query(path, f"PRAGMA foreign_key_list({name})")),
            "indexes": indexes(path, name),
            "autoincrement": "AUTOINCREMENT" in definition(path, name),
        }
        for name in tables
        if name != "alembic_version" and not name.startswith("sqlite_")
    }


def indexes(path: Path, table: str) -> list[Any]:
    found = []
    for _, name, unique, origin, partial in query(path, f"PRAGMA index_list({table})"):
        columns = [row[2] for row in query(path, f"PRAGMA index_info({name})")]
        condition = re.search(r"WHERE (.*)", definition(path, name)) if partial else None
        found.append(
            (name if origin == "c" else origin, columns, bool(unique), condition.group(1) if condition else None)
        )
    return sorted(found, key=repr)


def definition(path: Path, name: str) -> str:
    ((sql,),) = query(path, f"SELECT sql FROM sqlite_master WHERE name = '{name}'")
    return " ".join((sql or "").split())


@pytest.fixture
def path(settings: Settings) -> Path:
    return settings.sqlite_path


async def test_the_migrated_schema_is_what_the_models_declare(settings: Settings, path: Path, tmp_path: Path) -> None:
    await migrate(settings)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), models.metadata) == []
    engine.dispose()
    created = tmp_path / "created.db"
    engine = create_engine(f"sqlite:///{created}")
    models.metadata.create_all(engine)
    engine.dispose()
    assert structure(path) == structure(created)


def test_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]


async def test_a_new_database_is_in_wal_mode_with_large_pages(settings: Settings, path: Path) -> None:
    assert await current_revision(settings) is None
    before, now = await migrate(settings)
    assert before is None
    assert await current_revision(settings) == now
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    assert query(path, "PRAGMA page_size") == [(PAGE_BYTES,)]


async def test_a_second_migration_does_nothing(settings: Settings, path: Path, tmp_path: Path) -> None:
    _, now = await migrate(settings)
    query(path, ORGANIZATION)
    assert await migrate(settings) == (now, now)
    assert query(path, "SELECT name FROM organization") == [("kept",)]
    assert not list(tmp_path.glob("*.before-*"))


async def test_a_database_of_a_newer_version_is_refused_with_advice(settings: Settings, path: Path) -> None:
    await migrate(settings)
    query(path, "UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    with pytest.raises(StartError, match=r"9999.*newer.*install that version"):
        await migrate(settings)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("mode", "statement"), [("wal", "DELETE FROM organization"), ("delete", "SELECT count(*) FROM organization")]
)
async def test_a_file_that_another_program_has_locked_is_refused_in_one_line(
    settings: Settings, path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, statement: str
) -> None:
    await migrate(settings)
    query(path, f"PRAGMA journal_mode={mode}")
    query(path, "DELETE FROM alembic_version")
    monkeypatch.setattr(schema, "_LOCK_SECONDS", 0.01)
    monkeypatch.setattr(schema, "check_location", lambda _: None)  # the lock is taken after that
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute(statement).fetchall()
        with pytest.raises(StartError, match=r"locked by another process.*nothing was migrated"):
            await migrate(settings)


async def test_a_migration_without_room_on_the_disk_says_so(
    settings: Settings, path: Path, add_revision: Callable[[str], None]
) -> None:
    _, head = await migrate(settings)
    add_revision("op.execute('PRAGMA max_page_count=1'); op.execute('CREATE TABLE a (b)')")
    with pytest.raises(StartError, match=r"disk of .* is full.*make room"):
        await migrate(settings)
    assert await current_revision(settings) == head


async def test_a_failed_migration_changes_nothing_and_leaves_a_copy(
    settings: Settings, path: Path, add_revision: Callable[[str], None]
) -> None:
    _, head = await migrate(settings)
    query(path, ORGANIZATION)
    add_revision('raise RuntimeError("half-way")')
    before = structure(path)
    with pytest.raises(RuntimeError, match="half-way"):
        await migrate(settings)
    copy = path.with_name(f"{path.name}.before-{head}")
    for file in (path, copy):
        assert structure(file) == before
        assert query(file, "SELECT name FROM organization") == [("kept",)]
    assert await current_revision(settings) == head
    add_revision("pass")
    assert await migrate(settings) == (head, "9999")
    assert query(path, "SELECT name FROM organization") == [("changed",)]
    assert structure(copy) == before  # the way back
    assert copy.stat().st_mode & 0o777 == 0o600


async def test_only_the_copy_of_the_last_migration_is_kept(
    settings: Settings, path: Path, add_revision: Callable[[str], None]
) -> None:
    _, head = await migrate(settings)
    older = path.with_name(f"{path.name}.before-0001")
    restored = path.with_name(f"{path.name}.before-restore-20260101T000000Z")
    for file in (older, restored):
        file.write_bytes(path.read_bytes())
    add_revision("pass")
    await migrate(settings)
    assert sorted(path.parent.glob("*.before-*")) == [path.with_name(f"{path.name}.before-{head}"), restored]


async def test_a_failed_first_migration_leaves_no_table(
    settings: Settings, path: Path, add_revision: Callable[[str], None]
) -> None:
    add_revision('op.execute("a wrong statement")')
    with pytest.raises(Exception, match="syntax error"):
        await migrate(settings)
    assert query(path, "SELECT name FROM sqlite_master") == []
    add_revision("pass")
    assert await migrate(settings) == (None, "9999")


async def test_a_downgrade_and_an_upgrade_restore_the_same_schema(settings: Settings, path: Path) -> None:
    _, head = await migrate(settings)
    before = structure(path)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    engine.dispose()
    assert structure(path) == {}
    assert await migrate(settings) == (None, head)
    assert structure(path) == before
