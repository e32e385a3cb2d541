"""The schema on PostgreSQL: the migrations produce what the models declare, all or nothing, one process at a time."""

import asyncio
import importlib
import sys
from collections.abc import Callable, MutableMapping
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
from receiver.storage.postgresql import migrating
from receiver.storage.postgresql.server import core_engine
from receiver.storage.schema import check_schema, current_revision, migrate
from tests.fakes.databases import outside

pytestmark = pytest.mark.postgresql_only("reads PostgreSQL's own catalogue")

ORGANIZATION = (
    "INSERT INTO organization (uid, name, created_at) VALUES (gen_random_uuid(), 'kept', '2026-01-01 00:00:00+00')"
)


async def run_sync(settings: Settings, work: Any) -> Any:
    """Run `work` on a synchronous connection, as Alembic needs it; return its result."""
    engine = core_engine(settings.database_url, writes=True, poolclass=NullPool)
    async with engine.connect() as connection:
        result = await connection.run_sync(work)
    await engine.dispose()
    return result


def organization_names(settings: Settings) -> list[tuple[str]]:
    with outside(settings.database_url) as database:
        return list(database.execute("SELECT name FROM organization"))


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


async def test_the_migrated_schema_is_what_the_models_declare(settings: Settings) -> None:
    await migrate(settings)

    def differences(connection: Connection) -> Any:
        return compare_metadata(MigrationContext.configure(connection), models.metadata)

    assert await run_sync(settings, differences) == []


async def test_a_database_without_its_schema_is_refused_with_advice(
    settings: Settings, logged: list[MutableMapping[str, Any]]
) -> None:
    assert await current_revision(settings) is None
    with pytest.raises(StartError, match="ringback migrate"):
        await check_schema(settings)
    before, now = await migrate(settings)
    assert (before, await current_revision(settings)) == (None, now)
    logged.clear()
    await check_schema(settings)
    with outside(settings.database_url) as database:
        is_unsafe = database.execute("SHOW fsync").fetchone() == ("off",)  # a server for tests alone may be
    assert any(record.get("setting") == "fsync" for record in logged) == is_unsafe


async def test_a_second_migration_does_nothing(settings: Settings) -> None:
    _, now = await migrate(settings)
    with outside(settings.database_url) as database:
        database.execute(ORGANIZATION)
    assert await migrate(settings) == (now, now)
    assert organization_names(settings) == [("kept",)]


async def test_of_several_processes_that_migrate_at_once_one_does_it(settings: Settings) -> None:
    program = "import asyncio; from receiver.settings import load_settings; from receiver.storage.schema import migrate"
    program += "; print(asyncio.run(migrate(load_settings(env_file=None)))[0])"
    environment = {
        "RINGBACK_DATABASE_URL": settings.database_url,
        "RINGBACK_SECRET_KEY": "Wz5kQx8VtM3rYc7LpH2d",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program), env=environment, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(2)
    ]
    revisions_before = sorted([(await process.communicate())[0].decode().split()[-1] for process in processes])
    assert revisions_before == [await current_revision(settings), "None"]


async def test_a_database_of_a_newer_version_is_refused_with_advice(settings: Settings) -> None:
    await migrate(settings)
    with outside(settings.database_url) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    for begin in (migrate, check_schema):
        with pytest.raises(StartError, match=r"9999.*newer.*install that version"):
            await begin(settings)


async def test_a_failed_migration_changes_nothing(settings: Settings, add_revision: Callable[[str], None]) -> None:
    _, head = await migrate(settings)
    before = await run_sync(settings, tables)
    with outside(settings.database_url) as database:
        database.execute(ORGANIZATION)
    add_revision('raise RuntimeError("half-way")')
    with pytest.raises(RuntimeError, match="half-way"):
        await migrate(settings)
    assert (await current_revision(settings), await run_sync(settings, tables)) == (head, before)
    assert organization_names(settings) == [("kept",)]
    add_revision("pass")
    assert await migrate(settings) == (head, "9999")
    assert organization_names(settings) == [("changed",)]


async def test_a_failed_first_migration_leaves_no_table(
    settings: Settings, add_revision: Callable[[str], None]
) -> None:
    add_revision('op.execute("a wrong statement")')
    with pytest.raises(Exception, match="syntax error"):
        await migrate(settings)
    assert await run_sync(settings, tables) == set()


async def test_a_downgrade_and_an_upgrade_restore_the_same_schema(settings: Settings) -> None:
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


async def test_a_migration_behind_a_lock_names_who_holds_it_and_works_once_it_is_gone(
    settings: Settings, add_revision: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, head = await migrate(settings)
    for name, seconds in (("TRIES", 2), ("_PAUSE_SECONDS", 0.01), ("_LOOK_SECONDS", 0.02)):
        monkeypatch.setattr(migrating, name, seconds)
    monkeypatch.setattr(migrating, "_SETTINGS", {"lock_timeout": "400ms"})
    add_revision("op.execute('ALTER TABLE task ADD later integer')")
    with outside(settings.database_url) as foreign:
        foreign.execute("SET application_name = 'a report'")
        foreign.execute("BEGIN")
        foreign.execute("SELECT count(*) FROM task")
        (pid,) = foreign.execute("SELECT pg_backend_pid()").fetchone()
        with pytest.raises(
            StartError, match=rf"session {pid} of user \w+ \(a report\) idle in transaction.*run"
        ) as caught:
            await migrate(settings)
        assert "\n" not in caught.value.message
        foreign.execute("ROLLBACK")
    assert await migrate(settings) == (head, "9999")


async def test_the_tables_that_change_most_are_vacuumed_before_much_of_them_is_dead(settings: Settings) -> None:
    await migrate(settings)
    with outside(settings.database_url) as database:
        own = "reloptions IS NOT NULL AND relnamespace = current_schema()::regnamespace"
        rows = database.execute(f"SELECT relname, reloptions FROM pg_class WHERE {own}").fetchall()
    found = {name: dict(each.split("=") for each in options) for name, options in rows}
    assert found == importlib.import_module("migrations.versions.0013_table_upkeep").SETTINGS
    often = {"task", "event", "delivery", "delivery_attempt", "fan_out", "receipt", "idempotency_key"}
    assert all(float(found[name]["autovacuum_vacuum_scale_factor"]) <= 0.05 for name in often)
