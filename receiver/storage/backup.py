"""Backups: of a SQLite file while it is served, and of a PostgreSQL database with its own programs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from msgspec import Struct
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from receiver.clock import wall_now
from receiver.errors import RingbackError, StartError
from receiver.private_files import claim_private
from receiver.settings import Settings
from receiver.storage.installation import LAST_BACKUP, write_fact
from receiver.storage.one_transaction import in_transaction
from receiver.storage.sqlite.backup import OnProgress, copy_database
from receiver.storage.sqlite.file_check import check_file
from receiver.storage.sqlite.replace import STAMP, sync_folder
from receiver.telemetry.log import get_logger

log = get_logger("storage.backup")


class BackupMade(Struct, frozen=True):
    """A backup that was made and checked: its file, its size, how long it took, the schema in it."""

    file: Path
    bytes: int
    seconds: float
    revision: str


def default_target(settings: Settings, now: datetime) -> Path:
    """Return the name of a backup: beside the SQLite file; of a PostgreSQL database, in the present folder."""
    ending = f"-{now.strftime(STAMP)}.backup"
    if settings.is_sqlite:
        return settings.sqlite_path.with_name(settings.sqlite_path.name + ending)
    from receiver.storage.postgresql.programs import database_name

    return Path(database_name(settings.database_url) + ending)


async def back_up(
    settings: Settings, target: Path, *, overwrite: bool, programs: Path | None, on_progress: OnProgress
) -> BackupMade:
    """Make a backup, check it, and only then give it its name; a service goes on meanwhile.

    `programs` is the folder of PostgreSQL's programs, None to look for them as the shell does. Raises `StartError`,
    which says what to do: also if `target` exists and is not to be overwritten.
    """
    began, at = time.monotonic(), wall_now()
    with _part_of(target, overwrite=overwrite) as part:
        revision = await _make(settings, part, programs, on_progress)
    made = BackupMade(target, _size(target), round(time.monotonic() - began, 2), revision)
    await _note(settings, at, made)
    return made


@contextmanager
def _part_of(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Make an empty file beside the target, which takes its name when the context has ended well."""
    if target.exists() and not overwrite:
        raise StartError(f"{target} exists; name another file with --to, or overwrite it with --force")
    part = target.with_name(f"{target.name}.part")
    try:
        claimed = claim_private(part)
    except BlockingIOError:
        raise StartError(f"another backup to {target} is under way; wait for its end, or name another file") from None
    except OSError as error:
        raise _cannot_write(target, error) from None
    try:
        yield part.absolute()
        os.fsync(claimed.fileno())
        if target.exists() and not overwrite:
            raise StartError(f"{target} was made by another program meanwhile; name another file with --to")
        part.replace(target)
        sync_folder(target.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        raise (_cannot_write(target, error) if isinstance(error, OSError) else error) from None
    finally:
        claimed.close()


def _size(file: Path) -> int:
    return file.stat().st_size


def _cannot_write(target: Path, error: OSError) -> StartError:
    return StartError(f"{target} cannot be written ({error.strerror}); make room, or name another file with --to")


async def _make(settings: Settings, part: Path, programs: Path | None, on_progress: OnProgress) -> str:
    """Write the backup to a file that exists, check it, and return the revision of the schema in it."""
    if settings.is_sqlite:
        copy_database(settings.sqlite_path, part, on_progress)
        return check_file(part)
    from receiver.storage.postgresql.dump import check_dump, dump

    await dump(settings.database_url, part, programs)
    return (await check_dump(part, programs)).revision or ""


async def _note(settings: Settings, at: datetime, made: BackupMade) -> None:
    """Note in the database that a backup was made. The backup is good also where that fails."""
    value = {"at": at.isoformat(), "bytes": made.bytes, "seconds": made.seconds}

    def write(connection: Connection) -> bool:
        return write_fact(connection, LAST_BACKUP, value)

    try:
        if not await in_transaction(settings, write):
            log.info("backup not noted", advice="the schema is older than this version: run `ringback migrate`")
    except (RingbackError, DBAPIError) as error:
        log.warning("backup not noted", error=str(error).splitlines()[0])
