"""Hands over the first admin key, until it was used: to a terminal, or else to a file that only its owner can read.

What a service prints where there is no terminal, or in JSON, ends in a log, which is kept, copied and read by many.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from receiver.errors import StartError
from receiver.private_files import OTHERS, open_private, write_private
from receiver.settings import Settings
from receiver.telemetry.log import get_logger

log = get_logger("serving.first_key")

_BESIDE = "admin-key"
_MOST_BYTES = 4096


def hand_over(settings: Settings, key: str, say: Callable[[str], None]) -> None:
    """Hand the key over: `say` prints on stdout, and is called only if that is a terminal for people.

    `RINGBACK_FIRST_KEY_FILE` names a file that gets it in any case. A file that cannot be written is logged: the key is
    handed over again at the next start.
    """
    if settings.first_key_file is None and settings.log_format == "text" and sys.stdout.isatty():
        say(
            f"Your admin key, shown at each start until it is used:\n\n  {key}\n\n"
            "Keep it, for example: export RINGBACK_API_KEY=..."
        )
        return
    file = key_file_of(settings)
    try:
        if _content(file) != key:
            write_private(file, f"{key}\n")
    except (OSError, StartError) as error:
        log.error(
            "first admin key not written",
            file=str(file),
            error=str(error),
            advice="name a file that can be written in RINGBACK_FIRST_KEY_FILE, or set RINGBACK_API_KEY to a key of "
            "your own, and start again",
        )
        return
    log.warning(
        "first admin key written",
        file=str(file),
        advice="keep the key that is in it, then remove the file; for the commands: RINGBACK_API_KEY_FILE names it",
    )


def key_file_of(settings: Settings) -> Path:
    """Return the file for the first admin key: beside the SQLite file, with PostgreSQL in the present folder."""
    if settings.first_key_file is not None:
        return settings.first_key_file.absolute()
    if settings.is_sqlite:
        return settings.sqlite_path.with_name(f"{settings.sqlite_path.name}.{_BESIDE}").absolute()
    return Path(f"ringback.{_BESIDE}").absolute()


def _content(file: Path) -> str | None:
    """Return the key in a file that exists already; None if there is none, or if others can read it."""
    try:
        if file.lstat().st_mode & OTHERS:
            return None
    except FileNotFoundError:
        return None
    with open(open_private(file, os.O_RDONLY), "rb") as opened:  # noqa: PTH123 - a descriptor
        return opened.read(_MOST_BYTES).decode(errors="replace").strip()
