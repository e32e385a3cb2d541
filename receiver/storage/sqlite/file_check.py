"""Checks that a SQLite file is a whole database of Ringback's."""

import sqlite3
from contextlib import closing
from pathlib import Path

from receiver.errors import StartError
from receiver.storage.sqlite.connection import open_unchanged
from receiver.storage.tables import events, organizations, tasks

_FEW = 3
"""How many faults a message names."""
_ALWAYS = (tasks.name, events.name, organizations.name)
"""Tables that every schema of Ringback has."""


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
            if not names.issuperset({*_ALWAYS, "alembic_version"}):
                raise StartError(f"{named} is not a database of Ringback: it has no table {_missing(names)}")
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise StartError(f"{named} cannot be read as a database ({error})") from None
    if found is None:
        raise StartError(f"{named} has no schema")
    return str(found[0])


def integrity_faults(connection: sqlite3.Connection) -> list[str]:
    """Return the first faults that SQLite finds in its file; none if it is whole."""
    found = [text for (text,) in connection.execute(f"PRAGMA integrity_check({_FEW})")]
    return [] if found == ["ok"] else found


def _missing(names: set[str]) -> str:
    return next(name for name in (*_ALWAYS, "alembic_version") if name not in names)
