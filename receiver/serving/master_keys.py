"""The master keys of this installation: from the setting, or from a file beside the SQLite database."""

import os
from pathlib import Path

from receiver.domain.keyring import new_master_key
from receiver.errors import StartError
from receiver.settings import Settings


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


def _make(file: Path) -> None:
    """Write the key beside its place and move it there: a power cut leaves a whole key, or none."""
    beside = file.with_name(f"{file.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as opened:
        opened.write(new_master_key() + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    beside.rename(file)
