"""Puts a file in a SQLite database's place, and keeps the database that was there."""

import os
import sqlite3
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

from receiver.telemetry.log import get_logger

log = get_logger("storage.sqlite.replace")

STAMP = "%Y%m%dT%H%M%SZ"
"""The time in the name of a copy, in UTC."""
_BESIDE = ("-wal", "-shm", "-journal")


def seal(path: Path) -> None:
    """Put all of a database into its one file, and wait until it is on disk. Raises `sqlite3.Error` and `OSError`."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_database(new: Path, path: Path, now: datetime) -> Path | None:
    """Give a sealed file the database's name; return the name that the database before it has now, None if none was.

    At each moment there is a whole database at `path`, unless the one before was damaged. The caller holds its lock.
    Raises `OSError`.
    """
    kept = _keep(path, now) if path.exists() else None
    remove_beside(path)  # of the database before: it would be read into the new one
    new.replace(path)
    sync_folder(path.parent)
    return kept


def remove_beside(path: Path) -> None:
    """Remove the files that SQLite made beside a database which no process has open. Raises `OSError`."""
    for ending in _BESIDE:
        path.with_name(path.name + ending).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until a new name is on disk, where the file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep(path: Path, now: datetime) -> Path:
    """Give the database a second name, with all that its WAL has."""
    kept = path.with_name(f"{path.name}.before-restore-{now.strftime(STAMP)}")
    try:
        seal(path)
    except sqlite3.Error as error:  # it is damaged, and perhaps why it is replaced
        log.warning("replaced database is damaged", error=str(error))
        wal = path.with_name(f"{path.name}-wal")
        if wal.exists():
            wal.rename(kept.with_name(f"{kept.name}-wal"))
    try:
        os.link(path, kept)
    except OSError:  # a file system without hard links
        path.rename(kept)
    return kept
