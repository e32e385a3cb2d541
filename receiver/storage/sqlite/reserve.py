"""Room on the disk that is kept for what may not be lost when the disk is full.

A full disk loses nothing that was acknowledged, but the outcome of a call already made, such as the provider's id of a
task that was paid for, has to be stored now. So a file of `RESERVE_BYTES` lies beside the database. When a write finds
the disk full, the file is removed, the write is tried again in that room, and from then on only outcomes and the
provider's webhooks are stored: everything else is refused with 503 until there is room for the file again. A bound on
the free space would not do: other programs on the same disk do not keep to it.
"""

import errno
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from receiver.private_files import open_private
from receiver.telemetry.log import get_logger

RESERVE_BYTES = 8 * 1024 * 1024
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE})
"""SQLite reports only one of the system's errors as a full disk; a quota, or a limit of the process, is the second."""

log = get_logger("storage.sqlite.reserve")


def is_full(error: BaseException) -> bool:
    """Return whether a statement or a commit failed because there is no room on the disk."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in _FULL


class Reserve:
    """The file beside the database at `database`. `is_needed`: the disk was full, and has no room for it yet."""

    def __init__(self, database: Path) -> None:
        self.is_needed = False
        self._file = database.with_name(f"{database.name}.reserve")
        self._is_impossible = False

    @property
    def is_wanted(self) -> bool:
        """Whether the file is to be made."""
        return not self._is_impossible and (self.is_needed or not self._file.exists())

    def spend(self) -> bool:
        """Note that the disk is full, and make the room free; return whether there was any."""
        if not self.is_needed:
            log.error("disk is full", file=self._file.name, advice="make room; only outcomes and webhooks are stored")
        self.is_needed = True
        try:
            self._file.unlink()
        except OSError:
            return False
        return True

    def make(self) -> None:
        """Make the file if there is room for twice its size. Takes a moment: call it in a thread."""
        space = os.statvfs(self._file.parent)
        if space.f_bavail * space.f_frsize < 2 * RESERVE_BYTES:
            return
        try:
            self._write()
        except OSError as error:
            with suppress(OSError):
                self._file.unlink()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return
            self._is_impossible = True  # the file system, or a limit of the process, does not allow it
            log.warning("no room on the disk can be reserved", file=self._file.name, error=str(error))
        if self.is_needed:
            log.warning("disk has room again")
        self.is_needed = False

    def _write(self) -> None:
        self._file.unlink(missing_ok=True)
        with os.fdopen(open_private(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
            else:
                file.write(bytes(RESERVE_BYTES))
                file.flush()
                os.fsync(file.fileno())
