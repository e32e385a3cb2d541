"""Where settings come from: the environment, a file `.env`, and a file for each secret.

A secret in a file is how Docker and Kubernetes hand it over: `RINGBACK_PIAPI_API_KEY_FILE=/run/secrets/piapi` means
that the setting `RINGBACK_PIAPI_API_KEY` is the content of that file.
"""

import io
import os
import re
import select
import stat
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from receiver.byte_order_marks import without_mark
from receiver.errors import SettingsError
from receiver.setting_values import trimmed

PREFIX = "RINGBACK_"
_FILE = "_FILE"
_FIRST_PASSED = 3
"""The file descriptor of the first socket that systemd passes."""
_ADDRESS = r"(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]*:[0-9a-fA-F:.]+)"
_URL = re.compile(rf"(?:tcp|udp|sctp)://(?:{_ADDRESS}|\[{_ADDRESS}\]):\d+")
_NUMBER = re.compile(r"\d+")
_SERVICE = r"RINGBACK(?:_[A-Z0-9_]+)?"
"""The name of a Service as Kubernetes writes it into the names of variables."""
_INJECTED = tuple(
    (re.compile(_SERVICE + ending), form)
    for ending, form in (
        (r"_SERVICE_HOST", re.compile(_ADDRESS)),
        (r"_SERVICE_PORT(?:_[A-Z0-9_]+)?", _NUMBER),
        (r"_PORT_\d+_(?:TCP|UDP|SCTP)_PROTO", re.compile(r"tcp|udp|sctp")),
        (r"_PORT_\d+_(?:TCP|UDP|SCTP)_PORT", _NUMBER),
        (r"_PORT_\d+_(?:TCP|UDP|SCTP)_ADDR", re.compile(_ADDRESS)),
        (r"_PORT(?:_\d+_(?:TCP|UDP|SCTP))?", _URL),
    )
)
_MOST_SECRET_BYTES = 65_536
"""A larger file is not a secret, and may have no end (`/dev/zero`)."""
_PIPE_SECONDS = 5.0
"""How long who writes to a pipe may take: a shell's `<(command)` is one."""


def read_values(environment: Mapping[str, str] | None, env_file: Path | None) -> dict[str, str]:
    """Return the `RINGBACK_*` values by name, without what `trimmed` removes around them; empty ones count as not set.

    The environment (None: that of the process) takes precedence over the file. Raises `SettingsError` if the file
    cannot be read.
    """
    values = _read_env_file(env_file)
    given = os.environ if environment is None else environment
    values.update({name: value for name, value in given.items() if not is_injected(name, value)})
    stripped = {name: trimmed(value) for name, value in values.items() if name.startswith(PREFIX)}
    return {name: value for name, value in stripped.items() if value}


def for_programs(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a program of others: that of the process without Ringback's settings, and these."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return own | dict(variables)


def sentry_release() -> str | None:
    """Return the release that reports to Sentry name (`SENTRY_RELEASE`, which its own tools set too); None if unset."""
    return os.environ.get("SENTRY_RELEASE") or None


def is_injected(name: str, value: str) -> bool:
    """Return whether Kubernetes has set this variable: it does so for each Service, here one called `ringback...`.

    It counts only with a value of the form that Kubernetes gives it, so that a wrong name of a setting is still found.
    """
    return any(names.fullmatch(name) and form.fullmatch(value) for names, form in _INJECTED)


def with_secret_files(values: Mapping[str, str], secrets: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Replace each `<name>_FILE` by `<name>` with the file's content, for the names in `secrets`.

    Returns the values, and what is wrong by the name of the setting. No content of a file is ever part of that.
    """
    found, faults = dict(values), {}
    for name in secrets:
        path = found.pop(name + _FILE, None)
        if path is None:
            continue
        if name in found:
            faults[name + _FILE] = f"{name} is set too; remove one of them"
            continue
        try:
            found[name] = _read_secret(Path(path))
        except SettingsError as error:
            faults[name + _FILE] = f"{path}: {error.message}"
    return found, faults


def take_passed_sockets() -> dict[int, str]:
    """Return the sockets that systemd has passed to this process, names by file descriptor (`sd_listen_fds(3)`).

    What says so is removed from the environment: it is for this process alone.
    """
    process, number, names = (os.environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if process != str(os.getpid()) or not number.isdecimal():
        return {}
    named = names.split(":")
    return {_FIRST_PASSED + at: named[at] if at < len(named) else "" for at in range(int(number))}


def take_notify_socket() -> tuple[str | None, float | None]:
    """Return where systemd is to be notified, and in which time, in seconds, it wants to hear of this process.

    None is that it does not want to (`sd_notify(3)`, `sd_watchdog_enabled(3)`). Both are removed from the environment.
    """
    path, watchdog, process = (os.environ.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))
    is_watched = watchdog.isdecimal() and int(watchdog) > 0 and process in ("", str(os.getpid()))
    return path or None, int(watchdog) / 1e6 if is_watched else None


def _read_env_file(path: Path | None) -> dict[str, str]:
    if path is None or not path.is_file():
        return {}
    try:
        text = _decoded(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except SettingsError as error:
        raise SettingsError(f"{path}: {error.message}") from None
    _check_lines(text, path)
    values = dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in values.items() if value is not None}


def _check_lines(text: str, path: Path) -> None:
    """Raise `SettingsError` for a setting that cannot be read: it would be left out, as if it were not set."""
    for binding in parse_stream(io.StringIO(text)):
        before, prefix, _ = binding.original.string.partition(PREFIX)
        if binding.error and prefix:
            line = binding.original.line + before.count("\n")
            raise SettingsError(f"{path}: line {line} cannot be read; look for a missing quote")


def _read_secret(path: Path) -> str:
    """Return what is in the file of a secret, without the blanks and line breaks around it."""
    try:
        content = _content(path)
    except OSError as error:
        raise SettingsError(str(error.strerror)) from None
    if len(content) > _MOST_SECRET_BYTES:
        raise SettingsError(f"larger than {_MOST_SECRET_BYTES} bytes, which no secret is")
    secret = trimmed(_decoded(content))
    if not secret:
        raise SettingsError("empty")
    return secret


def _content(path: Path) -> bytes:
    """Return the bytes of a file, as many as a secret may have and one more.

    What is no file (a pipe, a device) is waited for within a bound: opening or reading a pipe without a writer
    would not end. Raises `OSError`, `SettingsError`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    content, until = b"", time.monotonic() + _PIPE_SECONDS
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        while len(content) <= _MOST_SECRET_BYTES:
            if not is_file and not select.select([file], [], [], max(0.0, until - time.monotonic()))[0]:
                raise SettingsError("a pipe or device from which nothing came; name a file")
            if not (part := file.read(_MOST_SECRET_BYTES + 1 - len(content))):
                break
            content += part
    return content


def _decoded(content: bytes) -> str:
    try:
        text = without_mark(content).decode()
    except UnicodeDecodeError:
        text = "\x00"
    if "\x00" in text:  # UTF-16 without a byte order mark is full of them
        raise SettingsError("not a text in UTF-8; save it in that encoding")
    return text
