"""Locations that a SQLite database cannot have: the start fails, and says why and what to do."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from receiver.errors import StartError
from receiver.serving.master_keys import master_keys
from receiver.settings import Settings, load_settings
from receiver.storage.schema import migrate
from receiver.storage.sqlite.location import lock_database

pytestmark = pytest.mark.sqlite_only("is about the location of a file")

UNPRIVILEGED_USER = 65534
HOLD = """
from contextlib import closing
from receiver.settings import load_settings
from receiver.storage.sqlite.location import lock_database

with closing(lock_database(load_settings(env_file=None).sqlite_path)):
    print("held", flush=True)
    input()
"""


def settings_for(path: Path) -> Settings:
    return load_settings({"RINGBACK_DATABASE_URL": f"sqlite:///{path}"}, env_file=None)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Run as an unprivileged user if the tests run as root, who may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(UNPRIVILEGED_USER)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter and only its owner may write to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def migrated(settings: Settings) -> None:
    asyncio.run(migrate(settings))


def locked(settings: Settings) -> object:
    return lock_database(settings.sqlite_path)


START: list[Callable[[Settings], object]] = [migrated, locked]


@pytest.mark.parametrize("begin", START)
def test_a_missing_folder_is_named(tmp_path: Path, begin: Callable[[Settings], object]) -> None:
    with pytest.raises(StartError, match="nowhere"):
        begin(settings_for(tmp_path / "nowhere" / "ringback.db"))


@pytest.mark.parametrize("begin", START)
def test_a_folder_without_write_permission_is_named(public_folder: Path, begin: Callable[[Settings], object]) -> None:
    public_folder.chmod(0o555)
    with without_privileges(), pytest.raises(StartError, match=r"ringback\.db"):
        begin(settings_for(public_folder / "ringback.db"))


@pytest.mark.parametrize("begin", START)
def test_a_folder_that_may_not_be_entered_is_named(public_folder: Path, begin: Callable[[Settings], object]) -> None:
    (public_folder / "inner").mkdir()
    public_folder.chmod(0)
    with without_privileges(), pytest.raises(StartError, match="inner"):
        begin(settings_for(public_folder / "inner" / "ringback.db"))


async def test_a_file_without_write_permission_is_named(public_folder: Path) -> None:
    settings = settings_for(public_folder / "ringback.db")
    await migrate(settings)
    settings.sqlite_path.chmod(0o444)
    with without_privileges(), pytest.raises(StartError, match=r"ringback\.db.*cannot be written to"):
        await migrate(settings)


async def test_a_folder_with_the_files_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "ringback.db").mkdir()
    with pytest.raises(StartError, match=r"ringback\.db"):
        await migrate(settings_for(tmp_path / "ringback.db"))


async def test_a_file_that_is_not_a_database_is_refused_and_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "ringback.db"
    file.write_text("Dear diary, " * 1000)
    with pytest.raises(StartError, match="not a database"):
        await migrate(settings_for(file))
    assert file.read_text() == "Dear diary, " * 1000


def test_a_locked_database_cannot_be_locked_again_until_it_is_unlocked(settings: Settings) -> None:
    with (
        closing(lock_database(settings.sqlite_path)),
        pytest.raises(StartError, match=r"another Ringback.*RINGBACK_DATABASE_URL"),
    ):
        lock_database(settings.sqlite_path)
    lock_database(settings.sqlite_path).close()


def test_a_database_that_another_process_has_locked_is_refused(settings: Settings) -> None:
    environment = {**os.environ, "RINGBACK_DATABASE_URL": settings.database_url}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=environment,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StartError, match="another Ringback"):
            lock_database(settings.sqlite_path)
        other.kill()
    lock_database(settings.sqlite_path).close()


READ_ONLY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
folder = sys.argv[1].encode()
MS_BIND, MS_REMOUNT, MS_RDONLY = 4096, 32, 1
if libc.unshare(0x20000) or libc.mount(b"none", b"/", None, 0x4000 | (1 << 18), None):
    sys.exit(77)
if libc.mount(folder, folder, None, MS_BIND, None):
    sys.exit(77)
if libc.mount(None, folder, None, MS_BIND | MS_REMOUNT | MS_RDONLY, None):
    sys.exit(77)
os.execv(sys.executable, [sys.executable, "-m", "receiver.cli", "serve", "--port", "0"])
"""


@pytest.mark.parametrize("is_there", [True, False], ids=["with a database", "empty"])
def test_a_read_only_file_system_is_told_in_one_line(tmp_path: Path, is_there: bool) -> None:
    settings = settings_for(tmp_path / "ringback.db")
    if is_there:
        migrated(settings)
        (tmp_path / "ringback.db.key").write_text("Jr5Wx9TqVm2Zk7HyLd4PgN8nBf3sXc6u")
    environment = {**os.environ, "RINGBACK_DATABASE_URL": settings.database_url}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=60
    )
    if run.returncode == 77:
        pytest.skip("mounting needs privileges")
    assert run.returncode == 3
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("ringback:")]
    assert "mounted read-only" in line
    assert "Traceback" not in run.stderr


def test_a_master_key_of_another_user_is_told_in_one_line(public_folder: Path) -> None:
    settings = settings_for(public_folder / "ringback.db")
    migrated(settings)
    key = public_folder / "ringback.db.key"
    key.write_text("Jr5Wx9TqVm2Zk7HyLd4PgN8nBf3sXc6u")
    key.chmod(0)
    with without_privileges(), pytest.raises(StartError, match=r"ringback\.db\.key cannot be read.*owner"):
        master_keys(settings)


def test_a_folder_that_may_not_be_listed_is_no_fault(public_folder: Path) -> None:
    public_folder.chmod(0o333)
    with without_privileges(), closing(lock_database(public_folder / "ringback.db")):
        pass
