"""`ringback init`: writes a file `.env` from answers, each checked as the settings check it."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from receiver.cli.console import ask, echo
from receiver.cli.failure import Failure, Status

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=~*-]*")
"""What needs no quotes, also for a shell that reads the file."""
_DATABASE, _SECRET_KEY, _API_KEY = "RINGBACK_DATABASE_URL", "RINGBACK_SECRET_KEY", "RINGBACK_API_KEY"


class Prompt(Struct, frozen=True):
    """A setting that is asked for. An empty answer leaves it out."""

    name: str
    text: str
    default: str = ""
    is_secret: bool = False


QUESTIONS = (
    Prompt(_DATABASE, "Database: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/NAME", "sqlite:///ringback.db"),
    Prompt("RINGBACK_PUBLIC_URL", "The https URL at which PiAPI reaches this service (empty: none, tasks are polled)"),
    Prompt("RINGBACK_PIAPI_API_KEY", "Your PiAPI key, not shown (empty: later)", is_secret=True),
)


def init(
    file: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")] = Path(".env"),
    defaults: Annotated[bool, typer.Option("--defaults", help="Ask nothing: SQLite, no public URL, no key.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Change a file that exists. A copy of it is kept, and so are its settings.")
    ] = False,
) -> None:
    """Write the settings of a new installation into a file .env, by asking for them.

    It asks for the database, the public URL and the PiAPI key, and makes an API key; for PostgreSQL also a master key.
    The file has mode 0600, because keys are in it. `ringback` reads it in the present folder.
    """
    from receiver.private_files import is_a_link, write_private

    if file.is_symlink():
        raise is_a_link(file)
    exists = file.exists()
    if exists and not force:
        raise Failure(Status.USAGE, f"{file} exists and is left as it is; change it with --force, which keeps a copy")
    values = _values(_present(file), (lambda question, default: default) if defaults else _asked)
    try:
        copy = _keep(file) if exists else None
        write_private(file, _text(values))
    except OSError as error:
        raise Failure(Status.USAGE, f"{file} cannot be written: {error.strerror or error}") from None
    echo(f"{file} is written, readable by you alone." + (f" The one before is {copy}." if copy else ""))
    _print_next(values)


def _present(file: Path) -> dict[str, str]:
    """Return the settings that a file has; none if it does not exist. Raises `SettingsError`."""
    from receiver.environment import read_values

    return read_values({}, file)


def _values(present: Mapping[str, str], answer: Callable[[Prompt, str], str]) -> dict[str, str]:
    """Return the settings to write: those that are there, changed by the answers, and the keys that are made."""
    from receiver.domain.keyring import new_api_key, new_master_key

    values = dict(present)
    if not _is_given(_API_KEY, values):
        values[_API_KEY] = new_api_key()
    for question in QUESTIONS:
        if f"{question.name}_FILE" in values:
            continue
        while True:
            given = answer(question, values.get(question.name, question.default))
            tried = {**values, question.name: given}
            if question.name == _DATABASE and not given.startswith("sqlite:") and not _is_given(_SECRET_KEY, values):
                tried[_SECRET_KEY] = new_master_key()
            fault = fault_of(question.name, tried)
            if fault is None:
                break
            if answer is not _asked:
                raise Failure(Status.USAGE, f"{question.name}: {fault}")
            echo(f"  {fault}", err=True)
        values = {name: value for name, value in tried.items() if value}
    return values


def _is_given(name: str, values: Mapping[str, str]) -> bool:
    return name in values or f"{name}_FILE" in values


def fault_of(name: str, values: Mapping[str, str]) -> str | None:
    """Return what the settings say is wrong with one of them, without its value; None if it is right."""
    from receiver.errors import SettingsError
    from receiver.settings import load_settings

    if "${" in values.get(name, ""):
        return f"a file .env cannot have ${{ in a value; put it into a file of its own, which {name}_FILE names"
    try:
        load_settings(values, env_file=None)
    except SettingsError as error:
        found = (line.removeprefix(f"{name}: ") for line in error.message.splitlines() if line.startswith(f"{name}: "))
        return next(found, None)
    return None


def _asked(question: Prompt, default: str) -> str:
    return ask(question.text, default, is_secret=question.is_secret).strip()


def _text(values: Mapping[str, str]) -> str:
    lines = [
        '# Written by `ringback init`. Every setting: README.md, "Settings".',
        "# Keep a copy elsewhere: it has keys, without which the secrets in the database cannot be read.",
        *(f"{name}={_quoted(value)}" for name, value in values.items()),
    ]
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _keep(file: Path) -> Path:
    """Copy a file beside itself, to be read by its owner alone; return the copy's path. Raises `OSError`."""
    from receiver.clock import wall_now
    from receiver.private_files import write_private

    copy = file.with_name(f"{file.name}.before-{wall_now():%Y%m%dT%H%M%S.%fZ}")
    write_private(copy, file.read_text(encoding="utf-8"))
    return copy


def _print_next(values: Mapping[str, str]) -> None:
    echo("An API key was made: RINGBACK_API_KEY there, which the other commands use by themselves in this folder.")
    if values.get(_SECRET_KEY):
        echo("Keep RINGBACK_SECRET_KEY safe: without it the secrets in the database cannot be read.")
    if not _is_given("RINGBACK_PIAPI_API_KEY", values):
        echo("Without RINGBACK_PIAPI_API_KEY PiAPI refuses every task: add it there.")
    echo("\nNext:", lines=True)
    if not values[_DATABASE].startswith("sqlite:"):
        echo("  ringback migrate    # once, and for each new version")
    echo("  ringback serve      # start it")
    echo("  ringback doctor     # in another terminal: is everything right?")
