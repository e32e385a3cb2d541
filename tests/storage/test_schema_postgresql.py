"""The schema on PostgreSQL: what the models say, reached all or nothing, by one process at a time."""

import asyncio
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, NullPool, inspect

import migrations
import models
from receiver.errors import StartError
from receiver.settings import Settings
from receiver.storage.postgresql.server import core_engine
from receiver.storage.schema import check_schema, current_revision, migrate
from tests.fakes.databases import outside
from tests.storage.test_schema import write_version

pytestmark = pytest.mark.postgresql_only("what PostgreSQL knows of its own tables")

ORGANIZATION = (
    "INSERT INTO organization (uid, name, created_at) VALUES (gen_random_uuid(), 'kept', '2026-01-01 00:00:00+00')"
)


async def run_sync(settings: Settings, work: Any) -> Any:
    """Run work on a connection as Alembic takes it, and commit."""
    engine = core_engine(settings.database_url, writes=True, poolclass=NullPool)
    async with engine.connect() as connection:
        found = await connection.run_sync(work)
    await engine.dispose()
    return found


def names(settings: Settings) -> list[tuple[str]]:
    with outside(settings.database_url) as database:
        return list(database.execute("SELECT name FROM organization"))


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A later Ringback: its migrations, this one's among them. Return where its own is to be written."""
    folder = tmp_path / "later"
    shutil.copytree(Path(migrations.__file__).parent, folder)
    monkeypatch.setattr(migrations, "__file__", str(folder / "__init__.py"))
    monkeypatch.setattr(migrations, "HEAD", migrations.HEAD)
    return folder / "versions" / "9999_next.py"


async def test_the_migrated_schema_is_what_the_models_say(settings: Settings) -> None:
    await migrate(settings)

    def differences(connection: Connection) -> Any:
        return compare_metadata(MigrationContext.configure(connection), models.metadata)

    assert await run_sync(settings, differences) == []


async def test_without_its_schema_it_is_not_served_and_that_is_said(settings: Settings) -> None:
    assert await current_revision(settings) is None
    with pytest.raises(StartError, match="ringback migrate"):
        await check_schema(settings)
    before, now = await migrate(settings)
    assert (before, await current_revision(settings)) == (None, now)
    await check_schema(settings)


async def test_migrating_again_does_nothing(settings: Settings) -> None:
    _, now = await migrate(settings)
    with outside(settings.database_url) as database:
        database.execute(ORGANIZATION)
    assert await migrate(settings) == (now, now)
    assert names(settings) == [("kept",)]


async def test_of_several_that_migrate_at_once_one_does(settings: Settings) -> None:
    program = "import asyncio; from receiver.settings import load_settings; from receiver.storage.schema import migrate"
    program += "; print(asyncio.run(migrate(load_settings(env_file=None)))[0])"
    environment = {
        "RINGBACK_DATABASE_URL": settings.database_url,
        "RINGBACK_SECRET_KEY": "any-master-key-at-all",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program), env=environment, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(2)
    ]
    said = sorted([(await process.communicate())[0].decode().split()[-1] for process in processes])
    assert said == [await current_revision(settings), "None"]


async def test_a_database_of_a_newer_version_is_refused_with_what_to_do(settings: Settings) -> None:
    await migrate(settings)
    with outside(settings.database_url) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    for begin in (migrate, check_schema):
        with pytest.raises(StartError, match=r"9999.*newer.*install that version"):
            await begin(settings)


async def test_a_migration_that_fails_leaves_all_as_it_was(settings: Settings, next_version: Path) -> None:
    _, head = await migrate(settings)
    before = await run_sync(settings, tables)
    with outside(settings.database_url) as database:
        database.execute(ORGANIZATION)
    write_version(next_version, str(head), 'raise RuntimeError("half-way")')
    with pytest.raises(RuntimeError, match="half-way"):
        await migrate(settings)
    assert (await current_revision(settings), await run_sync(settings, tables)) == (head, before)
    assert names(settings) == [("kept",)]
    write_version(next_version, str(head), "pass")
    assert await migrate(settings) == (head, "9999")
    assert names(settings) == [("changed",)]


async def test_a_first_migration_that_fails_leaves_no_table(settings: Settings, next_version: Path) -> None:
    (head,) = re.findall(r'revision = "(\d+)"', sorted(next_version.parent.glob("0*.py"))[-1].read_text())[:1]
    write_version(next_version, head, 'op.execute("a wrong statement")')
    with pytest.raises(Exception, match="syntax error"):
        await migrate(settings)
    assert await run_sync(settings, tables) == set()


async def test_down_and_up_again_is_the_same(settings: Settings) -> None:
    _, head = await migrate(settings)
    before = await run_sync(settings, tables)

    def downgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.downgrade(config, "base")

    await run_sync(settings, downgrade)
    assert await run_sync(settings, tables) == {"alembic_version"}
    assert await migrate(settings) == (None, head)
    assert await run_sync(settings, tables) == before
