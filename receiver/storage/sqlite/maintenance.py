"""Checks, measures and compacts a SQLite file.

A file never shrinks by itself: pages of purged rows are free for new ones. `auto_vacuum` would give them back, but
moves pages at each commit, scatters what belongs together, and costs a table of pointers; the file grows again with the
next load anyway. So it is compacted on request. A `VACUUM` in place locks writers out for its whole length and needs
twice the file's size besides. `VACUUM INTO` writes a new file, which then takes the place of the old one: it needs the
room once, and whatever happens meanwhile, one of them is whole.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import NullPool, create_engine

from receiver.errors import StartError
from receiver.private_files import claim_private
from receiver.storage.maintenance import Compacted, DatabaseSize, Finding, OwnFindings, Severity, TableSize
from receiver.storage.sqlite.backup import check_room, open_served
from receiver.storage.sqlite.file_check import check_file, integrity_faults
from receiver.storage.sqlite.location import hold_lock
from receiver.storage.sqlite.replace import seal
from receiver.storage.sqlite.reserve import is_full

_FREE_SHARE = 0.5
"""From this share of free pages on, compacting is worth its time."""
_FREE_BYTES = 64 * 1024 * 1024
_BY_TREE = "SELECT name, sum(pgsize), sum(CASE WHEN pagetype = 'leaf' THEN ncell ELSE 0 END) FROM dbstat GROUP BY name"
"""The bytes of each table and index; the cells of a table's leaves are its rows."""


def check_file_of(path: Path, own: OwnFindings) -> list[Finding]:
    """Check a database's file, and then with `own` what is in it. Raises `StartError` if it cannot be opened."""
    with closing(_opened(path)) as connection:
        try:
            if faults := integrity_faults(connection):
                return [_damaged(faults)]
            orphan = connection.execute("PRAGMA foreign_key_check").fetchone()
            bytes_, free = _pages(connection)
            journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
        except sqlite3.Error as error:
            return [_damaged([str(error)])]
    found = [
        Finding("version", f"SQLite {sqlite3.sqlite_version}"),
        Finding("file", "whole"),
        Finding("references", f"rows of {orphan[0]} name rows that are not there", Severity.BAD)
        if orphan
        else Finding("references", "whole"),
        _room(bytes_, free),
        _journal(journal),
    ]
    engine = create_engine("sqlite://", creator=lambda: _opened(path), poolclass=NullPool)
    try:
        with engine.connect() as own_connection:
            return [*found, *own(own_connection)]
    finally:
        engine.dispose()


def size_of_file(path: Path) -> DatabaseSize:
    """Return the size of a database. Raises `StartError`."""
    with closing(_opened(path)) as connection:
        bytes_, free = _pages(connection)
        owners = dict(connection.execute("SELECT name, tbl_name FROM sqlite_master").fetchall())
        tables = [name for name, owner in owners.items() if name == owner and not name.startswith("sqlite_")]
        try:
            trees = connection.execute(_BY_TREE).fetchall()
        except sqlite3.OperationalError:  # this SQLite was built without it
            counted = {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}
            return DatabaseSize(bytes_, free, [TableSize(name, rows, None) for name, rows in counted.items()])
    rows = {name: count for name, _, count in trees}
    sizes = dict.fromkeys(tables, 0)
    for name, size, _ in trees:
        if owners.get(name) in sizes:
            sizes[owners[name]] += size
    return DatabaseSize(bytes_, free, [TableSize(name, rows.get(name, 0), size) for name, size in sizes.items()])


def compact_file(path: Path) -> Compacted:
    """Write a database into a new file without its free pages. Raises `StartError`, also while a process serves it."""
    new = path.with_name(f"{path.name}.compacting")
    with closing(hold_lock(path)):
        _opened(path).close()  # refuses what is missing or damaged
        check_room(path, new, "make room")
        try:
            seal(path)
            before = path.stat().st_size
            with closing(claim_private(new)), closing(_opened(path)) as connection:
                connection.execute("VACUUM INTO ?", (str(new),))
            check_file(new)
            seal(new)
            new.replace(path)
        except (OSError, sqlite3.Error) as error:
            what = "its disk is full" if is_full(error) else str(error)
            raise StartError(f"{path} cannot be compacted ({what}), it is as it was; make room") from None
        finally:
            new.unlink(missing_ok=True)
        return Compacted(before, path.stat().st_size)


def _opened(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise StartError(f"{path} does not exist; name the database in RINGBACK_DATABASE_URL")
    try:
        connection = open_served(path)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise StartError(f"{path} cannot be read as a database ({error}); restore a backup") from None
    return connection


def _pages(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the bytes of all pages, and of the free ones."""
    size, count, free = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
    )
    return size * count, size * free


def _damaged(faults: list[str]) -> Finding:
    return Finding("file", f"damaged: {'; '.join(faults)}", Severity.BAD, "restore a backup")


def _room(bytes_: int, free: int) -> Finding:
    found = f"{free} of {bytes_} bytes are free for new rows"
    if free < _FREE_BYTES or free < _FREE_SHARE * bytes_:
        return Finding("room", found)
    return Finding("room", found, Severity.WARNING, "`ringback database compact` gives them back")


def _journal(mode: str) -> Finding:
    """Check how the file is written. Each start of the service sets WAL and, for itself, `synchronous=FULL`."""
    if mode == "wal":
        return Finding("durability", "WAL, and the service waits for the disk at each commit (synchronous=FULL)")
    found = f"journal_mode is {mode}: another program has changed it, or nothing has served this file yet"
    return Finding("durability", found, Severity.WARNING, "start the service, which sets it to WAL")
