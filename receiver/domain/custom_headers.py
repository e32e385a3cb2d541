"""Headers of a user's own on deliveries: which may be given, and how they are shown. Pure."""

import re
from collections.abc import Mapping

from receiver.domain.redaction import REDACTED
from receiver.errors import BadRequest

MOST_HEADERS = 20
LONGEST_NAME = 100
LONGEST_VALUE = 1000
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token of RFC 9110, 5.6.2."""
_OURS = frozenset(
    {
        "accept-encoding",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-webhook-secret",
    }
)
_OURS_BEGIN = ("webhook-", "x-pi-")
_OF_THE_CONNECTION = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def check_headers(headers: Mapping[str, str] | None, present: Mapping[str, str] | None = None) -> dict[str, str] | None:
    """Return a user's own headers, None where there are none; `present` are those that are there already.

    A value that is `REDACTED`, as headers are shown, means the value that is present.
    Raises `BadRequest` whose `param` is the header, such as `headers.Host`.
    """
    if not headers:
        return None
    if len(headers) > MOST_HEADERS:
        raise BadRequest(f"may name at most {MOST_HEADERS} headers", param="headers")
    kept = {name.lower(): value for name, value in (present or {}).items()}
    checked: dict[str, str] = {}
    for name, value in headers.items():
        _check_name(name, checked)
        checked[name] = _kept(name, kept) if value == REDACTED else _checked_value(name, value)
    return checked


def hidden(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as they are shown: their names alone."""
    return dict.fromkeys(headers, REDACTED)


def _check_name(name: str, before: Mapping[str, str]) -> None:
    if len(name) > LONGEST_NAME or _NAME.fullmatch(name) is None:
        raise _refused(name, f"the name must have 1 to {LONGEST_NAME} characters: ASCII letters, digits, hyphens")
    lower = name.lower()
    if lower in _OURS or lower.startswith(_OURS_BEGIN):
        raise _refused(name, f"Ringback sets {lower} itself; any name but {_reserved(_OURS)}, webhook-* and x-pi-*")
    if lower in _OF_THE_CONNECTION:
        raise _refused(name, f"{lower} belongs to the connection; any name but {_reserved(_OF_THE_CONNECTION)}")
    if lower in map(str.lower, before):
        raise _refused(name, "it is named twice; upper and lower case are one")


def _checked_value(name: str, value: str) -> str:
    value = value.strip(" \t")
    if len(value) > LONGEST_VALUE or not value.isprintable():
        raise _refused(name, f"the value must have at most {LONGEST_VALUE} characters, and no control characters")
    return value


def _kept(name: str, kept: Mapping[str, str]) -> str:
    if name.lower() not in kept:
        raise _refused(name, f"{REDACTED} stands for a value that is there already, and there is none; give the value")
    return kept[name.lower()]


def _reserved(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _refused(name: str, message: str) -> BadRequest:
    return BadRequest(message, param=f"headers.{name[:60]}")
