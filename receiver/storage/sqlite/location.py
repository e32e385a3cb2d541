"""Checks of a SQLite database's location: a file that can be written to, on a local disk, open in one process."""

import fcntl
import sqlite3
from pathlib import Path
from typing import IO

from receiver.errors import StartError
from receiver.storage.sqlite.reserve import is_full

_MOUNTS = Path("/proc/self/mounts")
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "lustre"}
)


def check_location(path: Path) -> None:
    """Raise `StartError`, which says what to do, unless a database at `path` can be written to."""
    folder = path.parent.absolute()
    try:
        exists = folder.is_dir()
    except OSError as error:
        raise _cannot_write(path, error) from None
    if not exists:
        raise StartError(f"{folder} does not exist; create the folder, or name another file in RINGBACK_DATABASE_URL")
    if (kind := _network_file_system(folder)) is not None:
        raise StartError(
            f"{folder} is on a network file system ({kind}), where SQLite loses data; name a file on a local disk in "
            "RINGBACK_DATABASE_URL, or a PostgreSQL server"
        )
    try:
        connection = sqlite3.connect(path, timeout=5, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise _cannot_write(path, error) from None


def lock_database(path: Path) -> IO[str]:
    """Lock a SQLite database for this process until the returned file is closed. Raises `StartError`."""
    check_location(path)
    lock = path.with_name(f"{path.name}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StartError(
            f"another Ringback process has {path} open, and SQLite allows only one; stop that process, "
            "or name another file in RINGBACK_DATABASE_URL"
        ) from None
    return lock


def _network_file_system(folder: Path) -> str | None:
    """Return the type of the network file system that a folder is on; None for a local one, or if it is unknown."""
    try:
        mounts = [line.split() for line in _MOUNTS.read_text().splitlines()]
    except OSError:
        return None
    real = folder.resolve()
    above = [(point, kind) for _, point, kind, *_ in mounts if real.is_relative_to(_unescaped(point))]
    # The longest mount point is the innermost; of two mounts at one point the later one hides the other.
    kind = max(reversed(above), key=lambda mount: len(mount[0]))[1] if above else ""
    return kind if kind in _NETWORK_FILE_SYSTEMS else None


def _unescaped(mount_point: str) -> str:
    return mount_point.replace(r"\040", " ").replace(r"\011", "\t").replace(r"\134", "\\")


def _cannot_write(path: Path, error: Exception) -> StartError:
    if is_full(error):
        return StartError(f"the disk of {path} is full ({error}); make room, then start again")
    return StartError(
        f"{path} cannot be written to ({error}); correct its permissions, stop the process that has it locked, "
        "or name another file in RINGBACK_DATABASE_URL"
    )
