"""The schema: migrated with Alembic, all revisions or none, by one process at a time."""

import os
import sqlite3
from pathlib import Path

from sqlalchemy import Connection, NullPool, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError, OperationalError

import migrations
from receiver.errors import DatabaseAway, StartError
from receiver.private_files import open_private
from receiver.settings import Settings
from receiver.storage.sqlite import configure
from receiver.storage.sqlite.location import check_location
from receiver.storage.sqlite.reserve import is_full
from receiver.telemetry.log import get_logger

log = get_logger("storage.schema")

_TABLE = "alembic_version"
"""Where Alembic stores the revision of a database."""
_LOCK_SECONDS = 30.0
"""How long a migration of a SQLite file waits for a lock that another process holds."""


async def migrate(settings: Settings) -> tuple[str | None, str]:
    """Migrate the database to this version's schema; return (the revision before, the revision now).

    All revisions run in one transaction. On SQLite an existing database is copied to `<file>.before-<revision>` first;
    the copy is removed when the migration has succeeded, and stays if it fails. On PostgreSQL an advisory lock keeps
    other processes from migrating at the same time, and a lock that another session holds is waited for within bounds
    (`receiver.storage.postgresql.migrating`).
    Raises `StartError` for a database of a newer version, or one that cannot be reached.
    """
    before, now = _migrate_file(settings.sqlite_path) if settings.is_sqlite else await _migrate_server(settings)
    if before != now:
        log.info("schema migrated", before=before, now=now)
    return before, now


async def check_schema(settings: Settings) -> None:
    """Raise `StartError`, which says what to do, unless the PostgreSQL database has exactly this version's schema.

    It is `DatabaseAway` where the schema is older: a migration may be at work, or about to begin.
    """
    found = await current_revision(settings)
    _refuse_newer(found)
    if found != migrations.HEAD:
        has = "has no schema yet" if found is None else f"has an older schema ({found})"
        raise DatabaseAway(f"the database {has}: run `ringback migrate` once, then start again")


async def current_revision(settings: Settings) -> str | None:
    """Return the revision of the database's schema; None if it has none yet. Raises `StartError`."""
    if settings.is_sqlite:
        return _revision_of_file(settings.sqlite_path) if settings.sqlite_path.exists() else None
    from receiver.storage.postgresql.connecting import connected, warn_if_not_durable

    async with connected(settings.database_url) as connection:
        try:
            found = await connection.run_sync(_revision)
            if found == migrations.HEAD:  # else it is asked again, or not served
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


def _migrate_file(path: Path) -> tuple[str | None, str]:
    check_location(path)
    try:
        return _migrate_located(path)
    except (OperationalError, sqlite3.OperationalError) as error:
        raise _cannot_migrate(path, getattr(error, "orig", None) or error) or error from None


def _migrate_located(path: Path) -> tuple[str | None, str]:
    before = _revision_of_file(path) if path.exists() else None
    if before == migrations.HEAD:
        return before, migrations.HEAD
    _refuse_newer(before)
    copy = _copy(path, before) if before is not None else None
    engine = create_engine("sqlite://", creator=lambda: _open(path), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        # SQLite's DDL is transactional as long as the driver does not commit by itself: AUTOCOMMIT and BEGIN.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        _upgrade(connection)
        connection.exec_driver_sql("COMMIT")
    engine.dispose()
    if copy is not None:
        copy.unlink()
    return before, migrations.HEAD


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

    return await migrate_server(settings.database_url, revision=_migrated_from, upgrade=_upgrade)


def _migrated_from(connection: Connection) -> str | None:
    """Return the revision of a database that may be migrated. Raises `StartError` for one of a newer version."""
    before = _revision(connection)
    _refuse_newer(before)
    return before


def _upgrade(connection: Connection) -> None:
    from receiver.storage.upgrade import upgrade

    upgrade(connection)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None)
    configure(connection, writes=True)
    return connection


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {_TABLE}")).scalar_one_or_none()


def _revision_of_file(path: Path) -> str | None:
    engine = create_engine("sqlite://", creator=lambda: _open(path), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return _revision(connection)
    finally:
        engine.dispose()


def _refuse_newer(revision: str | None) -> None:
    if revision in (None, migrations.HEAD):
        return
    from receiver.storage.upgrade import known_revisions

    if revision not in known_revisions():
        raise StartError(
            f"the database has schema {revision}, from a newer Ringback than this one; "
            "install that version, or restore the backup that you made before you upgraded"
        )


def _copy(path: Path, revision: str) -> Path:
    copy = path.with_name(f"{path.name}.before-{revision}")
    os.close(open_private(copy))
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    return copy
