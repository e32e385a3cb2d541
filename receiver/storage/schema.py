"""The schema: migrated with Alembic, all revisions or none, by one process at a time."""

import glob
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

import migrations
from receiver.errors import DatabaseAway, StartError
from receiver.private_files import open_private
from receiver.settings import Settings
from receiver.storage.compatibility import PresentSchema, present_schema
from receiver.storage.one_transaction import in_transaction_on_file
from receiver.storage.sqlite.connection import open_unchanged
from receiver.storage.sqlite.index_statistics import has_index_statistics, write_index_statistics
from receiver.storage.sqlite.location import check_location
from receiver.storage.sqlite.reserve import is_full
from receiver.telemetry.log import get_logger

log = get_logger("storage.schema")

T = TypeVar("T")

_LOCK_SECONDS = 30.0
"""How long a migration of a SQLite file waits for a lock that another process holds."""


async def migrate(settings: Settings) -> tuple[str | None, str]:
    """Migrate the database to this version's schema; return (the revision before, the revision now).

    All revisions run in one transaction. On SQLite an existing database is copied to `<file>.before-<revision>` first:
    the way back to the version before. The copy stays until the next migration has succeeded. On PostgreSQL an advisory
    lock keeps other processes from migrating at the same time, and a lock that another session holds is waited for
    within bounds (`receiver.storage.postgresql.migrating`).
    The schema of a later version is left as it is if this version may run on it (`receiver.storage.compatibility`).
    Raises `StartError` if it may not, and for a database that cannot be reached.
    """
    before, now = _migrate_file(settings.sqlite_path) if settings.is_sqlite else await _migrate_server(settings)
    if before != now:
        log.info("schema migrated", before=before, now=now)
    return before, now


async def check_schema(settings: Settings) -> None:
    """Raise `StartError`, which says what to do, unless this version may run on the PostgreSQL database's schema.

    It is `DatabaseAway` where the schema is older: a migration may be at work, or about to begin.
    """
    found = await read_schema(settings)
    if found.is_to_be_migrated():
        has = "has no schema yet" if found.revision is None else f"has an older schema ({found.revision})"
        raise DatabaseAway(f"the database {has}: run `ringback migrate` once, then start again")
    if not found.is_newest():
        log.warning("schema of a later version", revision=found.revision, readable_from=found.readable_from)


async def current_revision(settings: Settings) -> str | None:
    """Return the revision of the database's schema; None if it has none yet. Raises `StartError`."""
    return (await read_schema(settings)).revision


async def read_schema(settings: Settings) -> PresentSchema:
    """Return the schema that the database has; nothing is changed, on SQLite no file either. Raises `StartError`."""
    if settings.is_sqlite:
        try:
            return _schema_of_file(settings.sqlite_path)
        except DatabaseError as error:
            raise StartError(f"{settings.sqlite_path} cannot be read ({error.orig}); check it and its disk") from None
    from receiver.storage.postgresql.connecting import connected, warn_if_not_durable

    async with connected(settings.database_url) as connection:
        try:
            found = await connection.run_sync(present_schema)
            if found.is_newest():  # else it is asked again, or not served
                await warn_if_not_durable(connection)
            return found
        except DBAPIError as error:
            raise _cannot_read(error) from None


def _cannot_read(error: DBAPIError) -> Exception:
    """Return the error in one line for a server that cannot answer at present; any other as it is."""
    from receiver.storage.postgresql.errors import is_unavailable, unavailable

    if not is_unavailable(error):
        return error
    return DatabaseAway(f"{unavailable(error, 'cannot be read')}; `ringback migrate` may be at work")


def upgrade_file(path: Path) -> None:
    """Migrate a SQLite file that no process serves, without a copy of it.

    Raises `StartError` if this version cannot run on it.
    """
    if _schema_of_file(path).is_to_be_migrated():
        in_transaction_on_file(path, _upgrade)


def _migrate_file(path: Path) -> tuple[str | None, str]:
    check_location(path)
    try:
        return _migrate_located(path)
    except (OperationalError, sqlite3.OperationalError) as error:
        raise _cannot_migrate(path, getattr(error, "orig", None) or error) or error from None


def _migrate_located(path: Path) -> tuple[str | None, str]:
    found = _schema_of_file(path)
    if not found.is_to_be_migrated():
        if found.is_newest() and not _read_file(path, has_index_statistics):
            _write_index_statistics(path)
        return found.revision, found.revision or migrations.HEAD
    before = found.revision
    copy = _copy(path, before) if before is not None else None
    in_transaction_on_file(path, _upgrade_with_statistics, lock_seconds=_LOCK_SECONDS)
    _remove_copies(path, but=copy)
    return before, migrations.HEAD


def _write_index_statistics(path: Path) -> None:
    """Write them if that is possible now: without them the service is slower, and not wrong."""
    try:
        in_transaction_on_file(path, write_index_statistics)
    except OperationalError as error:
        log.warning("index statistics not written", error=str(error.orig))


def _cannot_migrate(path: Path, error: BaseException) -> StartError | None:
    """Return the error in one line if the file, its locks or its disk are at fault; None if a statement is."""
    if is_full(error):
        return StartError(f"the disk of {path} is full ({error}), nothing was migrated; make room, then start again")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code == sqlite3.SQLITE_ERROR:
        return None
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StartError(
            f"{path} is locked by another process ({error}), nothing was migrated; "
            "end that process or its transaction, then start again"
        )
    return StartError(f"{path} cannot be read and written to ({error}), nothing was migrated; check its disk")


async def _migrate_server(settings: Settings) -> tuple[str | None, str]:
    from receiver.storage.postgresql.migrating import migrate_server

    return await migrate_server(settings.database_url, upgrade=_upgrade)


def _upgrade(connection: Connection) -> None:
    from receiver.storage.upgrade import upgrade

    upgrade(connection)


def _upgrade_with_statistics(connection: Connection) -> None:
    _upgrade(connection)
    write_index_statistics(connection)


def _schema_of_file(path: Path) -> PresentSchema:
    return _read_file(path, present_schema) if path.exists() else PresentSchema(None)


def _read_file(path: Path, read: Callable[[Connection], T]) -> T:
    engine = create_engine("sqlite://", creator=lambda: open_unchanged(path), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return read(connection)
    finally:
        engine.dispose()


def _copy(path: Path, revision: str) -> Path:
    copy = path.with_name(f"{path.name}.before-{revision}")
    os.close(open_private(copy))
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    return copy


def _remove_copies(path: Path, *, but: Path | None) -> None:
    """Remove the copies of earlier migrations: one way back is kept."""
    for copy in path.absolute().parent.glob(f"{glob.escape(path.name)}.before-[0-9][0-9][0-9][0-9]"):
        if but is None or copy.name != but.name:
            copy.unlink()
