"""Backups of PostgreSQL with its own programs: which are refused, and what they are told of the connection."""

import os
import stat
from pathlib import Path

import pytest

from receiver.errors import StartError
from receiver.settings import Settings
from receiver.storage.backup import back_up
from receiver.storage.postgresql.dump import refuse_if_served, restore_dump
from receiver.storage.postgresql.programs import connection_variables
from receiver.storage.schema import migrate
from tests.fakes.databases import outside
from tests.fakes.postgresql_programs import programs

pytestmark = pytest.mark.postgresql_only("pg_dump is PostgreSQL's")


def program(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


async def made(settings: Settings, target: Path, folder: Path) -> None:
    await back_up(settings, target, overwrite=False, programs=folder, on_progress=lambda *_: None)


async def test_programs_that_are_missing_too_old_or_fail_are_told_in_one_line(
    settings: Settings, tmp_path: Path
) -> None:
    await migrate(settings)
    folder, target = tmp_path / "bin", tmp_path / "made.backup"
    folder.mkdir()
    with pytest.raises(StartError, match=r"pg_dump is not installed.*--programs"):
        await made(settings, target, folder)
    program(folder, "pg_dump", 'echo "pg_dump (PostgreSQL) 9.6"')
    with pytest.raises(StartError, match=r"pg_dump has version 9, and the server \d+.*install"):
        await made(settings, target, folder)
    program(
        folder,
        "pg_dump",
        '[ "$1" = --version ] && echo "pg_dump (PostgreSQL) 99.1" || { echo "error: no" >&2; exit 1; }',
    )
    with pytest.raises(StartError, match="pg_dump failed: error: no"):
        await made(settings, target, folder)
    assert not list(tmp_path.glob("made.backup*"))


async def test_the_password_is_in_no_command_line(settings: Settings, tmp_path: Path) -> None:
    await migrate(settings)
    folder, seen = tmp_path / "bin", tmp_path / "seen"
    folder.mkdir()
    real = programs().folder
    program(
        folder, "pg_dump", f'echo "$@" >> {seen}; echo "$PGPASSWORD" >> {seen}.environment; exec {real}/pg_dump "$@"'
    )
    program(folder, "pg_restore", f'echo "$@" >> {seen}; exec {real}/pg_restore "$@"')
    url = settings.database_url.replace("postgres@", "postgres:Vq8sTz3nLw@")
    await made(settings.model_copy(update={"database_url": url}), tmp_path / "made.backup", folder)
    assert "Vq8sTz3nLw" not in seen.read_text()
    assert "Vq8sTz3nLw" in Path(f"{seen}.environment").read_text()


async def test_a_database_with_tables_is_not_overwritten(settings: Settings, tmp_path: Path) -> None:
    await migrate(settings)
    await made(settings, tmp_path / "made.backup", programs().folder)
    with pytest.raises(StartError, match=r"the database has \d+ tables.*--force"):
        await restore_dump(settings.database_url, tmp_path / "made.backup", programs().folder, replaces=False)
    with outside(settings.database_url) as database:
        assert database.execute("SELECT count(*) FROM organization").fetchone() == (0,)
    await refuse_if_served(settings.database_url)


@pytest.mark.parametrize(
    ("url", "variables"),
    [
        ("postgresql://u:p%40ss@h:5433/d?sslmode=require", {"PGHOST": "h", "PGPORT": "5433", "PGPASSWORD": "p@ss"}),
        ("postgresql://u@[::1]/d", {"PGHOST": "::1", "PGDATABASE": "d", "PGUSER": "u"}),
        ("postgresql://u@a:1,b:2/d", {"PGHOST": "a,b", "PGPORT": "1,2"}),
        ("postgresql://u@/d%20e?host=/run/pg", {"PGHOST": "/run/pg", "PGDATABASE": "d e"}),
    ],
)
def test_the_url_becomes_variables(url: str, variables: dict[str, str]) -> None:
    assert variables.items() <= connection_variables(url).items()
    assert os.environ.get("PGHOST") is None
