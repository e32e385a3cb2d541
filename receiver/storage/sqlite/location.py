"""Checks of a SQLite database's location: a file that can be written to, on a local disk, open in one process.

The file and those beside it (WAL, lock, reserve, copies) are for the service's own user: made with mode 0600, and never
opened through a symbolic link. The folder may be one.
"""

import errno
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import IO

from receiver.errors import StartError
from receiver.private_files import OTHERS, close_to_others, is_a_link, open_private
from receiver.storage.sqlite.reserve import is_full
from receiver.telemetry.log import get_logger

log = get_logger("storage.sqlite.location")

_ENDINGS = ("-wal", "-shm", "-journal", ".lock", ".reserve")
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
    _check_not_linked(path)
    try:
        os.close(open_private(path))  # SQLite gives the WAL the mode that the database has
    except OSError as error:
        raise _cannot_write(path, error) from None
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
    """Lock a SQLite database that can be written to for this process, until the returned file is closed.

    Raises `StartError`.
    """
    check_location(path)
    close_database_files(path)
    return hold_lock(path)


def hold_lock(path: Path) -> IO[str]:
    """Lock the place of a SQLite database, whatever is there, until the returned file is closed.

    Raises `StartError`.
    """
    lock_path = path.with_name(f"{path.name}.lock")
    try:
        lock = os.fdopen(open_private(lock_path), "r+")
    except OSError as error:
        raise _cannot_write(lock_path, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StartError(
            f"another Ringback process has {path} open, and SQLite allows only one; stop that process, "
            "or name another file in RINGBACK_DATABASE_URL"
        ) from None
    return lock


def close_database_files(path: Path) -> None:
    """Take the rights of others from the database and the files beside it, which an earlier version gave them.

    The master key's file is left out: others may have read the key, so a start refuses it (`serving.master_keys`).
    """
    try:
        copies = _copies(path)
    except OSError as error:
        log.warning("copies not looked for", folder=str(path.absolute().parent), error=error.strerror)
        copies = []
    for file in [path, *_files_beside(path), *copies]:
        try:
            if close_to_others(file):
                log.warning("file was open to others", file=str(file), advice="its mode is 0600 now")
        except OSError as error:
            log.warning("file is open to others", file=str(file), error=error.strerror, advice=f"run: chmod 600 {file}")


def _files_beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in _ENDINGS]


def _copies(path: Path) -> list[Path]:
    """Return the copies that migrations and restores kept. Raises `OSError`."""
    start = f"{path.name}.before-"
    return [file for file in path.absolute().parent.iterdir() if file.name.startswith(start)]


def open_files(path: Path) -> list[Path]:
    """Return those of a database's files, its key and its copies that others than their owner have rights on."""
    files = [path, path.with_name(f"{path.name}.key"), *_files_beside(path), *_copies(path)]
    return [file for file in files if file.exists() and file.stat().st_mode & OTHERS]


def _check_not_linked(path: Path) -> None:
    if path.is_symlink():
        raise StartError(
            f"{path} is a symbolic link; name the file itself in RINGBACK_DATABASE_URL "
            f"(sqlite:///{path.resolve()}), and move {path.name}.key to its folder"
        )
    for file in _files_beside(path):
        if file.is_symlink():
            raise is_a_link(file)


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
    if is_full(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return StartError(f"the disk of {path} is full ({error}); make room, then start again")
    if getattr(error, "errno", None) == errno.EROFS:
        return StartError(
            f"{path} is on a file system that is mounted read-only; mount it read-write, or name a file elsewhere "
            "in RINGBACK_DATABASE_URL"
        )
    return StartError(
        f"{path} cannot be written to ({error}); correct its permissions, stop the process that has it locked, "
        "or name another file in RINGBACK_DATABASE_URL"
    )
