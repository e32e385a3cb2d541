"""Which versions run on which schema: the version before goes on, and can start, on what a migration only added."""

from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from typer.testing import CliRunner

import migrations
from receiver.errors import StartError
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.schema import check_schema, migrate, read_schema
from tests.fakes.command_line import app
from tests.fakes.databases import outside

FIRST_WITH_FACTS = "0009"
"""The revision from which on a schema keeps which versions may run on it."""


@pytest.fixture
def as_this_version(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that turns the later version of `add_revision` back into this one."""
    file, head = migrations.__file__, migrations.HEAD

    def back() -> None:
        monkeypatch.setattr(migrations, "__file__", file)
        monkeypatch.setattr(migrations, "HEAD", head)

    return back


async def test_this_version_starts_on_a_later_schema_that_only_adds(
    settings: Settings, add_revision: Callable[..., None], as_this_version: Callable[[], None]
) -> None:
    _, head = await migrate(settings)
    add_revision("pass", readable_from=head)
    assert await migrate(settings) == (head, "9999")
    as_this_version()
    assert await migrate(settings) == ("9999", "9999")  # nothing is to be done, and nothing is
    await check_schema(settings) if not settings.is_sqlite else None
    async with await Database.open(settings) as database:
        await database.check()
    with outside(settings.database_url) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


async def test_this_version_refuses_a_later_schema_that_takes_something_away(
    settings: Settings, add_revision: Callable[..., None], as_this_version: Callable[[], None]
) -> None:
    _, head = await migrate(settings)
    add_revision("pass")
    await migrate(settings)
    as_this_version()
    with pytest.raises(StartError, match=r"9999.*newer.*install that version"):
        await migrate(settings)
    with outside(settings.database_url) as database:  # what an earlier migration said holds no longer
        database.execute("UPDATE installation_fact SET value = ? WHERE name = 'schema'", (said("9998", head),))
    assert (await read_schema(settings)).readable_from is None


def said(revision: str, readable_from: str) -> str:
    return f'{{"revision": "{revision}", "readable_from": "{readable_from}"}}'


@pytest.mark.no_database("reads the migrations")
def test_every_migration_says_which_versions_may_run_on_it() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    for script in ScriptDirectory.from_config(config).walk_revisions():
        readable_from = getattr(script.module, "readable_from", None)
        if script.revision >= FIRST_WITH_FACTS:
            assert readable_from is not None, f"{script.revision}: set readable_from (deploy/guides/upgrading.md)"
            assert readable_from <= script.revision


def test_what_would_be_migrated_is_told_and_nothing_touched(
    settings: Settings, tmp_path: Path, add_revision: Callable[..., None]
) -> None:
    environment = {"RINGBACK_DATABASE_URL": settings.database_url, "RINGBACK_SECRET_KEY": "Wz5kQx8VtM3rYc7LpH2d"}

    def check(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["migrate", *options], env=environment)
        return result.exit_code, result.stdout

    before = sorted(tmp_path.iterdir())
    status, out = check("--check")
    assert (status, "at nothing" in out, "0001" in out, migrations.HEAD in out) == (1, True, True, True)
    assert sorted(tmp_path.iterdir()) == before  # no file was made
    head = migrations.HEAD
    assert check()[0] == 0
    assert check("--check") == (0, f"The schema is at {head}, nothing is to be migrated.\n")
    add_revision("pass")
    files = {file: file.read_bytes() for file in tmp_path.glob("ringback.db*")}
    status, out = check("--check", "--json")
    assert (status, '"9999"' in out, '"0001"' in out) == (1, True, False)
    assert {file: file.read_bytes() for file in tmp_path.glob("ringback.db*")} == files
