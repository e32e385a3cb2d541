"""Restores a backup, and prepares a database that was restored by other means, so that it can be served again."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

from msgspec import Struct
from sqlalchemy import Connection

from receiver.clock import wall_now
from receiver.domain.keyring import KeyRing
from receiver.errors import StartError
from receiver.private_files import claim_private
from receiver.settings import Settings
from receiver.storage.after_restore import AfterRestore, after_restore
from receiver.storage.encrypted_values import sample_unreadable
from receiver.storage.one_transaction import in_transaction, in_transaction_on_file
from receiver.storage.schema import migrate, upgrade_file
from receiver.storage.sqlite.backup import OnProgress, copy_database
from receiver.storage.sqlite.connection import open_unchanged
from receiver.storage.sqlite.file_check import check_file
from receiver.storage.sqlite.location import hold_lock
from receiver.storage.sqlite.replace import remove_beside, replace_database, seal


class Restored(Struct, frozen=True):
    """What a restore did; `replaced` is where the database before it is now, None if there was none."""

    done: AfterRestore
    replaced: Path | None


async def restore(
    settings: Settings, keyring: KeyRing, file: Path, *, is_forced: bool, programs: Path | None, on_progress: OnProgress
) -> Restored:
    """Put a backup in the place of the database, and prepare it to be served.

    On SQLite the database before it is kept beside it. On PostgreSQL the database must be empty, unless `is_forced`,
    which replaces what is in it. `is_forced` also restores what the present master keys do not decrypt. `programs` is
    the folder of PostgreSQL's programs. Raises `StartError`, and then the database is as it was.
    """
    file = _absolute(file)
    prepare = partial(_prepare, keyring=keyring, is_forced=is_forced)
    if settings.is_sqlite:
        return _restore_file(settings.sqlite_path, file, prepare, on_progress)
    from receiver.storage.postgresql.dump import check_dump, restore_dump

    (await check_dump(file, programs)).is_to_be_migrated()  # refuses one of a newer version
    await restore_dump(settings.database_url, file, programs, replaces=is_forced)
    try:
        await migrate(settings)
        return Restored(await in_transaction(settings, prepare), None)
    except StartError as error:
        raise StartError(
            f"the backup is in the database, and not prepared yet: {error.message}; then run "
            "`ringback database after-restore` before anything serves it"
        ) from None


async def prepare_restored(settings: Settings, keyring: KeyRing, *, is_forced: bool) -> AfterRestore:
    """Prepare a database that was restored by other means. Raises `StartError`, also while a process serves it."""
    async with _unserved(settings):
        await migrate(settings)
        return await in_transaction(settings, partial(_prepare, keyring=keyring, is_forced=is_forced))


@asynccontextmanager
async def _unserved(settings: Settings) -> AsyncIterator[None]:
    if settings.is_sqlite:
        if not settings.sqlite_path.exists():
            raise StartError(f"{settings.sqlite_path} does not exist; restore it first")
        with closing(hold_lock(settings.sqlite_path)):
            yield
        return
    from receiver.storage.postgresql.dump import refuse_if_served

    await refuse_if_served(settings.database_url)
    yield


def _restore_file(
    path: Path, file: Path, prepare: Callable[[Connection], AfterRestore], on_progress: OnProgress
) -> Restored:
    new = path.with_name(f"{path.name}.restoring")
    try:
        with closing(hold_lock(path)), closing(claim_private(new)):
            try:
                copy_database(file, new, on_progress, open_unchanged)
                check_file(new, file)
                upgrade_file(new)
                done = in_transaction_on_file(new, prepare)
                seal(new)
                return Restored(done, replace_database(new, path, wall_now()))
            finally:
                remove_beside(new)
                new.unlink(missing_ok=True)
    except BlockingIOError:
        raise StartError(f"another restore to {path} is under way; wait for its end") from None
    except (OSError, sqlite3.Error) as error:
        raise StartError(f"{path} cannot be replaced ({error}); correct its permissions and make room") from None


def _absolute(file: Path) -> Path:
    if not file.is_file():
        raise StartError(f"{file} is not a file; name a backup")
    return file.absolute()


def _prepare(connection: Connection, *, keyring: KeyRing, is_forced: bool) -> AfterRestore:
    unread, tried = sample_unreadable(connection, keyring)
    if unread and not is_forced:
        raise StartError(
            f"the master key does not fit: it decrypts {tried - unread} of {tried} stored secrets; put the key of that "
            "time into RINGBACK_SECRET_KEY or its file, or give these secrets up with --force"
        )
    return after_restore(connection, wall_now())
