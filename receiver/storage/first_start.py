"""What the first start makes: the master key beside the SQLite file, the organization, an admin key."""

import fcntl
import os
from pathlib import Path
from typing import IO

from models import Scope
from receiver.clock import utc_now
from receiver.domain.keyring import new_api_key, new_master_key
from receiver.errors import StartError
from receiver.settings import Settings
from receiver.storage.database import Database
from receiver.storage.keys import DEFAULT_ORGANIZATION, any_key, ensure_organization, insert_key, key_row, replace_key
from receiver.storage.sqlite.location import check_place
from receiver.storage.transaction import Transaction

_SETTING = "RINGBACK_API_KEY"
_FIRST = "first admin key"


def master_keys(settings: Settings) -> list[str]:
    """Return the master keys, oldest first: the setting's, or the file's, which the first start makes (mode 0600).

    Raises `StartError` if others can read the file, or if a database is there whose key is gone.
    """
    if settings.secret_key is not None:
        return [key.strip() for key in settings.secret_key.get_secret_value().split(",") if key.strip()]
    file = key_file(settings)
    if not file.exists():
        if settings.sqlite_path.exists() and settings.sqlite_path.stat().st_size > 0:
            raise StartError(
                f"{file} is gone, and the secrets in {settings.sqlite_path} cannot be read without it: "
                "put it back, or set RINGBACK_SECRET_KEY to the key that was in it"
            )
        _make(file)
    if file.stat().st_mode & 0o077:
        raise StartError(f"{file} can be read by others: run chmod 600 {file}")
    keys = [key.strip() for key in file.read_text().split(",") if key.strip()]
    if not keys:
        raise StartError(
            f"{file} is empty: put the master key back into it, or set RINGBACK_SECRET_KEY; "
            "if nothing was ever started here, remove the file"
        )
    return keys


def key_file(settings: Settings) -> Path:
    """Return where the master key of a SQLite database is kept."""
    return settings.sqlite_path.with_name(f"{settings.sqlite_path.name}.key")


def hold(settings: Settings) -> IO[str]:
    """Hold the SQLite file for this process, until the returned file is closed. Raises `StartError`."""
    check_place(settings.sqlite_path)
    held = settings.sqlite_path.with_name(f"{settings.sqlite_path.name}.lock").open("w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held.close()
        raise StartError(
            f"another Ringback has {settings.sqlite_path} open: SQLite serves one process; end that one, "
            "or name another file in RINGBACK_DATABASE_URL"
        ) from None
    return held


async def ensure_keys(database: Database, settings: Settings) -> str | None:
    """See to it that there is an organization and a key; return the admin key if one was made just now."""
    return await database.writer.run(lambda tx: _ensure_keys(tx, settings))


async def _ensure_keys(tx: Transaction, settings: Settings) -> str | None:
    now = utc_now()
    # The organization's row stays locked: of several processes that start at once, one makes the key.
    organization_id = await ensure_organization(tx, DEFAULT_ORGANIZATION, now)
    if settings.api_key is not None:
        row = key_row(organization_id, settings.api_key.get_secret_value(), _SETTING, Scope.ADMIN, now)
        await replace_key(tx, row, now)
        return None
    if await tx.execute(any_key()):
        return None
    key = new_api_key()
    await insert_key(tx, key_row(organization_id, key, _FIRST, Scope.ADMIN, now))
    return key


def _make(file: Path) -> None:
    """Write the key beside its place and move it there: a power cut leaves a whole key, or none."""
    beside = file.with_name(f"{file.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as opened:
        opened.write(new_master_key() + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    beside.rename(file)
