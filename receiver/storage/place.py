"""Where a SQLite file may be: a folder that is there, a file that can be written to."""

import sqlite3
from pathlib import Path

from receiver.errors import StartError


def check_place(path: Path) -> None:
    """Raise `StartError`, which says what to do, unless a database at `path` can be written to."""
    folder = path.parent.absolute()
    try:
        there = folder.is_dir()
    except OSError as error:
        raise _cannot_write(path, error) from None
    if not there:
        raise StartError(f"{folder} is not there; make the folder, or name another file in RINGBACK_DATABASE_URL")
    try:
        connection = sqlite3.connect(path, timeout=5, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: Path, error: Exception) -> StartError:
    return StartError(
        f"{path} cannot be written to ({error}); mend its rights, end whoever has it locked, "
        "or name another file in RINGBACK_DATABASE_URL"
    )
