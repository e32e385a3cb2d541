"""The files of an installation are for its own user alone, and no symbolic link leads them elsewhere."""

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import StartError
from receiver.private_files import write_private
from receiver.serving.master_keys import master_keys
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.schema import migrate
from receiver.storage.sqlite.location import lock_database
from receiver.storage.sqlite.reserve import Reserve
from tests.fakes.databases import settings_in
from tests.storage.rows import add_organization

pytestmark = pytest.mark.sqlite_only("is about files")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def beside(settings: Settings, ending: str) -> Path:
    return settings.sqlite_path.with_name(settings.sqlite_path.name + ending)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def fresh(tmp_path: Path) -> Settings:
    return settings_in(tmp_path, migrated=False)


@pytest.mark.usefixtures("open_umask")
async def test_every_file_is_made_for_its_owner_alone_whatever_the_umask(fresh: Settings) -> None:
    with closing(lock_database(fresh.sqlite_path)):
        master_keys(fresh)
        await migrate(fresh)
        async with await Database.open(fresh) as database:
            await add_organization(database)
            assert database.upkeep is not None
            database.upkeep.reserve.make()
            files = [fresh.sqlite_path, *(beside(fresh, end) for end in ("-wal", "-shm", ".lock", ".reserve", ".key"))]
            assert {path.name: oct(mode_of(path)) for path in files} == {path.name: "0o600" for path in files}


def test_files_that_were_open_to_others_are_closed_at_the_start(
    fresh: Settings, logged: list[MutableMapping[str, Any]]
) -> None:
    for path in (fresh.sqlite_path, beside(fresh, ".before-0005"), beside(fresh, ".lock")):
        path.touch()
        path.chmod(0o644)
    with closing(lock_database(fresh.sqlite_path)):
        assert mode_of(fresh.sqlite_path) == mode_of(beside(fresh, ".before-0005")) == 0o600
    assert sum(record["event"] == "file was open to others" for record in logged) == 3


@pytest.mark.parametrize("ending", ["", ".lock", ".key", "-wal"])
def test_a_symbolic_link_in_place_of_a_file_is_refused_and_its_target_untouched(
    fresh: Settings, tmp_path: Path, ending: str
) -> None:
    target = tmp_path / "target"
    target.write_text("somebody's file")
    beside(fresh, ending).symlink_to(target)
    with pytest.raises(StartError, match="symbolic link"), closing(lock_database(fresh.sqlite_path)):
        master_keys(fresh)
    assert target.read_text() == "somebody's file"


def test_a_link_to_nothing_makes_no_file_elsewhere(fresh: Settings, tmp_path: Path) -> None:
    beside(fresh, ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match="symbolic link"):
        lock_database(fresh.sqlite_path)
    assert not (tmp_path / "elsewhere").exists()


def test_the_folder_may_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    with closing(lock_database(tmp_path / "data" / "ringback.db")):
        assert (tmp_path / "disk" / "ringback.db").exists()


def test_a_lock_file_is_never_emptied(fresh: Settings) -> None:
    beside(fresh, ".lock").write_text("kept")
    with closing(lock_database(fresh.sqlite_path)):
        assert beside(fresh, ".lock").read_text() == "kept"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_refused(fresh: Settings, make: Callable[[Path], None]) -> None:
    make(beside(fresh, ".lock"))
    with pytest.raises(StartError, match=r"ringback\.db\.lock"):
        lock_database(fresh.sqlite_path)


def test_a_reserve_does_not_follow_a_link(fresh: Settings, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("somebody's file")
    beside(fresh, ".reserve").symlink_to(target)
    Reserve(fresh.sqlite_path).make()
    assert target.read_text() == "somebody's file"
    assert not beside(fresh, ".reserve").is_symlink()


def test_a_link_to_a_migration_copy_is_refused(fresh: Settings, tmp_path: Path) -> None:
    beside(fresh, ".before-0005").symlink_to(tmp_path / "target")
    with pytest.raises(StartError, match="symbolic link"):
        lock_database(fresh.sqlite_path)


async def test_a_copy_before_a_migration_is_for_its_owner_alone(fresh: Settings) -> None:
    await migrate(fresh)
    with closing(sqlite3.connect(fresh.sqlite_path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0005'")
        connection.commit()
    with pytest.raises(Exception):  # noqa: B017, PT011 - the tables of the next revision exist already
        await migrate(fresh)
    assert mode_of(beside(fresh, ".before-0005")) == 0o600


def test_a_file_is_written_in_place_of_a_link(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "secret"
    target.write_text("somebody's file")
    path.symlink_to(target)
    write_private(path, "a key\n")
    assert (target.read_text(), path.read_text(), mode_of(path)) == ("somebody's file", "a key\n", 0o600)


def test_a_file_that_cannot_take_its_place_leaves_no_copy_beside_it(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(IsADirectoryError):
        write_private(tmp_path / "secret", "a key\n")
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
