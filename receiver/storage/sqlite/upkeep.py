"""Watches the files of a SQLite database: the WAL stays small, and the reserve is there.

SQLite writes to the WAL and copies it back into the database at a checkpoint. What a reader still needs is not copied,
and the WAL does not start from its beginning: a transaction that another program leaves open on the file (a shell, a
backup) lets the WAL grow with every write. Nothing here can end it, so it is logged and measured
(`ringback_sqlite_wal_bytes`).

When the reader has left, a commit would copy all of the WAL at once and hold up every write meanwhile. So while the WAL
is larger than `LARGE_BYTES`, commits do not checkpoint. A connection in a thread copies it beside the writes (a
`PASSIVE` checkpoint takes no lock that a write needs), and when little is left to copy, it truncates the file.

On a full disk no commit succeeds, and so none checkpoints: the WAL that filled the disk would stay when its reader has
left. So while the disk is full, the WAL is made smaller in the same way, however large it is.
"""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from sqlalchemy import text

from receiver.errors import Unavailable
from receiver.storage.sqlite.connection import CHECKPOINT_PAGES
from receiver.storage.sqlite.reserve import Reserve, is_full
from receiver.storage.writer import Writer
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import sqlite_wal_bytes

LARGE_BYTES = 64 * 1024 * 1024
INTERVAL_SECONDS = 1.0
_RESERVE_AFTER_SECONDS = 5.0
"""The reserve is made this long after the start, so that it does not slow it."""
_WARN_SECONDS = 60.0
_TRUNCATE_TRIES = 20
_TRUNCATE_PAUSE_SECONDS = 0.005

log = get_logger("storage.sqlite.upkeep")


class SQLiteUpkeep:
    """Looks after the files of the database at `path`."""

    def __init__(self, path: Path, writer: Writer, reserve: Reserve) -> None:
        self._path = path
        self._wal = path.with_name(f"{path.name}-wal")
        self._writer = writer
        self.reserve = reserve
        self._is_large = False
        self._warned_at = float("-inf")

    async def run(self) -> None:
        """Look at the files at intervals until cancelled."""
        clock = asyncio.get_running_loop().time
        reserve_from = clock() + _RESERVE_AFTER_SECONDS
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                await self.tend_wal()
                if self.reserve.is_wanted and (clock() >= reserve_from or self.reserve.is_needed):
                    await asyncio.to_thread(self.reserve.make)
            except (Unavailable, OSError, sqlite3.Error) as error:
                log.warning("files not looked after", error=str(error))

    async def tend_wal(self) -> None:
        """Measure the WAL, and make it smaller if it is large, or fills the disk, and no reader is in the way."""
        sqlite_wal_bytes.set(size := self._size())
        if size <= LARGE_BYTES and not self._is_large and not self.reserve.is_needed:
            return
        if size > LARGE_BYTES and not self._is_large:
            await self._checkpoint_at(0)
            self._is_large = True
        left = await asyncio.to_thread(self._shrink)
        sqlite_wal_bytes.set(size := self._size())
        if self._is_large and size <= LARGE_BYTES:
            await self._checkpoint_at(CHECKPOINT_PAGES)
            self._is_large = False
            log.info("wal is small again", bytes=size)
        elif left > CHECKPOINT_PAGES and asyncio.get_running_loop().time() >= self._warned_at + _WARN_SECONDS:
            self._warned_at = asyncio.get_running_loop().time()
            log.warning(
                "wal cannot shrink",
                bytes=size,
                advice=f"another program has a transaction open on {self._path.name} and lets {self._wal.name} grow: "
                "end it",
            )

    def _size(self) -> int:
        try:
            return self._wal.stat().st_size
        except FileNotFoundError:
            return 0

    async def _checkpoint_at(self, pages: int) -> None:
        """Let commits checkpoint when the WAL has this many pages; 0 for never."""
        await self._writer.run(lambda tx: tx.execute(text(f"PRAGMA wal_autocheckpoint={pages}")), bounded=False)

    def _shrink(self) -> int:
        """Copy what may be copied, and truncate the WAL if that was all.

        Return how many pages are left to copy because of a reader.
        """
        with closing(sqlite3.connect(self._path, timeout=0, isolation_level=None)) as connection:
            for _ in range(_TRUNCATE_TRIES):
                try:
                    _, pages, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                except sqlite3.OperationalError as error:
                    if is_full(error):  # the database itself has no room to grow
                        return 0
                    raise
                if pages - copied > CHECKPOINT_PAGES:
                    return int(pages - copied)
                try:
                    if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0:
                        return 0
                except sqlite3.OperationalError:  # locked by a write: tried again between two
                    pass
                time.sleep(_TRUNCATE_PAUSE_SECONDS)
            return int(pages - copied)
