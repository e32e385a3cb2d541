"""The master keys of this installation: from `RINGBACK_SECRET_KEY`, or from a file beside the SQLite database."""

from pathlib import Path

from receiver.byte_order_marks import without_mark
from receiver.domain.keyring import KeyRing, new_master_key
from receiver.errors import StartError
from receiver.key_strength import check_newest_master_key
from receiver.private_files import OTHERS, is_a_link, write_private
from receiver.setting_values import split_list
from receiver.settings import Settings


def master_keys(settings: Settings) -> list[str]:
    """Return the master keys, oldest first: from the setting, else from the file, which the first start creates.

    The file has mode 0600. Raises `StartError` if others can read it, if it is a symbolic link or empty, if its last
    key could be guessed, or if it is missing although the database exists.
    """
    if settings.secret_key is not None:
        return split_list(settings.secret_key.get_secret_value())
    file = key_file(settings)
    if file.is_symlink():
        raise is_a_link(file)
    if not file.exists():
        if not is_new(settings):
            raise StartError(
                f"{file} is missing, and the secrets in {settings.sqlite_path} cannot be read without it; "
                "restore the file, or set RINGBACK_SECRET_KEY to the key that was in it"
            )
        try:
            write_private(file, new_master_key() + "\n")  # after a power cut it is there whole, or not at all
        except OSError as error:
            raise StartError(
                f"{file} cannot be written ({error.strerror}); let the service's user write there, and make room"
            ) from None
    if file.stat().st_mode & OTHERS:
        raise StartError(f"{file} can be read by others; run: chmod 600 {file}")
    try:
        keys = split_list(without_mark(file.read_bytes()).decode())
    except OSError as error:
        raise StartError(f"{file} cannot be read ({error.strerror}); make the service's user its owner") from None
    except UnicodeDecodeError:
        raise StartError(f"{file} is not a text; restore the master key in it") from None
    if not keys:
        raise StartError(
            f"{file} is empty; restore the master key in it, or set RINGBACK_SECRET_KEY; "
            "if the service never started with this database, remove the file"
        )
    try:
        check_newest_master_key(keys)
    except ValueError as error:
        raise StartError(f"{file}: {error}") from None
    return keys


def present_keyring(settings: Settings) -> KeyRing:
    """Return the master keys for a restore; no new one is made, for it could read nothing of a backup.

    Raises `StartError`.
    """
    if settings.secret_key is None and not key_file(settings).exists():
        raise StartError(
            f"the master key is missing, and a backup cannot be used without it: put it into {key_file(settings)}, of "
            "mode 0600, or set RINGBACK_SECRET_KEY"
        )
    return KeyRing(master_keys(settings))


def is_new(settings: Settings) -> bool:
    """Return whether the SQLite database does not exist yet, or is an empty file."""
    return not settings.sqlite_path.exists() or settings.sqlite_path.stat().st_size == 0


def key_file(settings: Settings) -> Path:
    """Return the path of the file that holds the master keys of a SQLite database."""
    return settings.sqlite_path.with_name(f"{settings.sqlite_path.name}.key")
