"""Copies a SQLite database while it is served.

The copy is made with SQLite's backup API, some pages at a time, in one read transaction. In WAL mode a reader holds no
writer up, and the transaction fixes what is copied: without it, each commit of the service would let the copy begin
again, and under load it would never end. `VACUUM INTO` would do the same in one statement, but builds every table and
index again, which takes several times as long, and shows no progress. Meanwhile the WAL cannot start over: it grows by
what is written while the copy is made, and shrinks afterwards (`receiver.storage.sqlite.upkeep`).
"""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from receiver.errors import StartError
from receiver.storage.sqlite.reserve import is_full

OnProgress = Callable[[int, int], None]
"""Called with how many bytes are copied, and how many there are."""
_PAGES = 1024
"""Pages that are copied at a time: 8 MB."""


def open_served(path: Path) -> sqlite3.Connection:
    """Open a database that may be served. Raises `sqlite3.OperationalError`."""
    # Not read-only: who is the first to open a database in WAL mode makes the files beside it.
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=10, isolation_level=None)


def copy_database(
    source: Path,
    target: Path,
    on_progress: OnProgress,
    open_source: Callable[[Path], sqlite3.Connection] = open_served,
) -> None:
    """Copy a database into a file that exists; the copy needs no other file beside it. Raises `StartError`."""
    if not source.exists():
        raise StartError(f"{source} does not exist; name the database in RINGBACK_DATABASE_URL")
    check_room(source, target, "make room, or name a file on another disk")
    try:
        with closing(open_source(source)) as reading, closing(sqlite3.connect(target, isolation_level=None)) as writing:
            page_bytes = reading.execute("PRAGMA page_size").fetchone()[0]
            writing.execute("PRAGMA synchronous=OFF")  # it is synced once, at its end
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM sqlite_master").fetchone()  # fixes what is copied
            reading.backup(
                writing,
                pages=_PAGES,
                progress=lambda _status, left, total: on_progress((total - left) * page_bytes, total * page_bytes),
            )
            reading.execute("ROLLBACK")
            writing.execute("PRAGMA journal_mode=DELETE")  # in WAL mode it would need two other files to be read
    except sqlite3.Error as error:
        raise _cannot_copy(source, target, error) from None


def check_room(source: Path, target: Path, do: str) -> None:
    """Raise `StartError`, which says what to `do`, unless the disk of `target` has room for a copy of `source`."""
    needed, free = source.stat().st_size, shutil.disk_usage(target.parent).free
    if free < needed:
        raise StartError(
            f"the disk of {target} has {free // 2**20} MiB free, and {source} takes {needed // 2**20} MiB; {do}"
        )


def _cannot_copy(source: Path, target: Path, error: sqlite3.Error) -> StartError:
    if is_full(error):
        return StartError(f"the disk of {target} is full ({error}); make room, or name a file on another disk")
    return StartError(f"{source} cannot be copied ({error}); check that it is a database, its permissions and its disk")
