"""Checks that a SQLite file is a whole database of Ringback's."""

import sqlite3
from contextlib import closing
from pathlib import Path

from receiver.errors import StartError
from receiver.storage.compatibility import REQUIRED_TABLES, VERSION_TABLE
from receiver.storage.sqlite.connection import open_unchanged

_FEW = 3
"""How many faults a message names."""


def check_file(path: Path, named: Path | None = None) -> str:
    """Return the revision of a database's schema. Raises `StartError` if it is damaged, or no database of Ringback.

    Errors name the file `named`, of which this may be a copy.
    """
    named = named or path
    try:
        with closing(open_unchanged(path)) as connection:
            faults = integrity_faults(connection)
            if faults:
                raise StartError(f"{named} is damaged: {'; '.join(faults)}")
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if missing := [name for name in REQUIRED_TABLES if name not in names]:
                raise StartError(f"{named} is not a database of Ringback: it has no table {missing[0]}")
            found = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
    except sqlite3.Error as error:
        raise StartError(f"{named} cannot be read as a database ({error})") from None
    if found is None:
        raise StartError(f"{named} has no schema")
    return str(found[0])


def integrity_faults(connection: sqlite3.Connection) -> list[str]:
    """Return the first faults that SQLite finds in its file; none if it is whole."""
    found = [text for (text,) in connection.execute(f"PRAGMA integrity_check({_FEW})")]
    return [] if found == ["ok"] else found
