"""Values from the command line, read and checked: JSON, files, `key=value`, times. Wrong ones raise `Failure`."""

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from getpass import getpass
from pathlib import Path
from typing import Any

import orjson

from receiver.byte_order_marks import without_mark
from receiver.cli.failure import Failure, Status
from receiver.setting_values import trimmed

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def json_object(given: str, option: str) -> dict[str, Any]:
    """Return the JSON object in an option's value, which is JSON text, `@file`, or `@-` for standard input."""
    source = option
    if given.startswith("@"):
        source = f"{option} {given}"
        text = _read(given.removeprefix("@"), source)
    else:
        text = given.encode(errors="replace")
    return _parse_object(text, source, ', such as \'{"prompt": "a cat"}\'')


def json_file(name: str, option: str) -> dict[str, Any]:
    """Return the JSON object in a file; the name `-` is standard input."""
    return _parse_object(_read(name, f"{option} {name}"), f"{option} {name}")


def secret_of(given: str | None, file: str | None, option: str) -> str | None:
    """Return the secret of an option, or of the file that `<option>-file` names; None if neither is given.

    The file `-` is standard input; on a terminal the secret is asked for and not shown.
    """
    if file is None:
        return given
    source = f"{option}-file {file}"
    if given is not None:
        raise Failure(Status.USAGE, f"give {option} or {option}-file, not both")
    if file == "-" and sys.stdin.isatty():
        text = getpass(f"{option.removeprefix('--')}: ")
    else:
        try:
            text = without_mark(_read(file, source)).decode()
        except UnicodeDecodeError:
            raise Failure(Status.USAGE, f"{source} is not a text in UTF-8: save it in that encoding") from None
    if not (found := trimmed(text)):
        raise Failure(Status.USAGE, f"{source} is empty")
    return found


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """Return the values of `key=value` options as text, by key."""
    found = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise Failure(Status.USAGE, f"{option} {pair}: must be key=value")
        found[key] = value
    return found


def typed_pairs(given: Sequence[str], option: str) -> dict[str, Any]:
    """Return the values of `key=value` options by key: parsed if they are JSON, otherwise as text."""
    return {key: _parse_or_keep(value) for key, value in pairs(given, option).items()}


def seconds(given: str, option: str) -> float:
    """Return a duration such as `90`, `90s`, `30m`, `24h` or `7d` in seconds."""
    match = _DURATION.fullmatch(given.strip())
    if match is None:
        raise Failure(Status.USAGE, f"{option} {given}: must be a duration, such as 90s, 30m, 24h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def moment(given: str | None) -> str | None:
    """Return a time in a form that the API accepts.

    A duration with a unit, such as `30m`, `24h` or `7d`, means that long ago. Any other text is returned unchanged, for
    the service to check.
    """
    return _moment(given, -1, "ago is before the year 1")


def later_moment(given: str | None) -> str | None:
    """Return a time as `moment` does, but a duration means that long from now."""
    return _moment(given, 1, "from now is after the year 9999")


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are not None: options that were not given are left out of a request."""
    return {name: value for name, value in values.items() if value is not None}


def _moment(given: str | None, direction: int, beyond: str) -> str | None:
    match = _DURATION.fullmatch(given.strip()) if given else None
    if match is None or not match[2]:
        return given
    try:
        return (datetime.now(UTC) + direction * timedelta(seconds=float(match[1]) * _UNITS[match[2]])).isoformat()
    except OverflowError:
        raise Failure(Status.USAGE, f"{given} {beyond}; give a shorter time") from None


def _parse_object(text: bytes, source: str, hint: str = "") -> dict[str, Any]:
    text = without_mark(text)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        what = f"is not JSON: {error}" if _is_utf8(text) else "is not a text in UTF-8: save it in that encoding"
        raise Failure(Status.USAGE, f"{source} {what}") from None
    if not isinstance(value, dict):
        raise Failure(Status.USAGE, f"{source} must be a JSON object{hint}")
    return value


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parse_or_keep(value: str) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def _read(name: str, source: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Failure(Status.USAGE, f"{source}: {error.strerror}") from None
