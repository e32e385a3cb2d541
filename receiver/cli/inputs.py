"""What a user gives on the command line, read and checked: JSON, files, `key=value`. Faults are `Failure`s."""

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from receiver.cli.failure import Failure, Status

_LENGTH = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def json_object(given: str, option: str) -> dict[str, Any]:
    """Return the JSON object that an option holds: as text, as `@file`, or as `@-` for standard input."""
    if given.startswith("@"):
        text = _read(given.removeprefix("@"), f"{option} {given}")
    else:
        text = given.encode(errors="replace")
    return _object(text, option, ', such as \'{"prompt": "a cat"}\'')


def json_file(name: str, option: str) -> dict[str, Any]:
    """Return the JSON object that a file holds; `-` is standard input."""
    return _object(_read(name, f"{option} {name}"), f"{option} {name}")


def _object(text: bytes, what: str, hint: str = "") -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Failure(Status.USAGE, f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Failure(Status.USAGE, f"{what} must be a JSON object{hint}")
    return value


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """Return `key=value` options as text by key."""
    found = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise Failure(Status.USAGE, f"{option} {pair}: must be key=value")
        found[key] = value
    return found


def typed_pairs(given: Sequence[str], option: str) -> dict[str, Any]:
    """Return `key=value` options by key: a value that is JSON as what it is, any other as text."""
    return {key: _typed(value) for key, value in pairs(given, option).items()}


def seconds(given: str, option: str) -> float:
    """Return a length of time such as `90`, `90s`, `30m`, `24h` or `7d` in seconds."""
    match = _LENGTH.fullmatch(given.strip())
    if match is None:
        raise Failure(Status.USAGE, f"{option} {given}: must be a length of time, such as 90s, 30m, 24h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def moment(given: str) -> str:
    """Return a moment for the service: `30m`, `24h` or `7d` mean so long ago; anything else is passed on as it is."""
    match = _LENGTH.fullmatch(given.strip())
    if match is None or not match[2]:
        return given
    try:
        return (datetime.now(UTC) - timedelta(seconds=float(match[1]) * _UNITS[match[2]])).isoformat()
    except OverflowError:
        raise Failure(Status.USAGE, f"{given} ago is before the calendar begins") from None


def _typed(value: str) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def _read(name: str, what: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Failure(Status.USAGE, f"{what}: {error.strerror}") from None
