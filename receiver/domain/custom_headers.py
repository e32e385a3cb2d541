"""Custom headers that a user sets on deliveries: which are allowed, and how the API returns them."""

import re
from collections.abc import Mapping

from receiver.domain.redaction import REDACTED
from receiver.errors import BadRequest

MOST_HEADERS = 20
LONGEST_NAME = 100
LONGEST_VALUE = 1000
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token (RFC 9110, 5.6.2)."""
_SET_BY_RINGBACK = frozenset(
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
_PREFIXES_SET_BY_RINGBACK = ("webhook-", "x-pi-")
_CONNECTION_HEADERS = frozenset(
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
    """Return checked headers; None for no headers. `present` are the headers that the subscription has.

    The API returns each value as `REDACTED`, so a client may send that back: it stands for the present value.
    Raises `BadRequest` whose `param` is the header, such as `headers.Host`.
    """
    if not headers:
        return None
    if len(headers) > MOST_HEADERS:
        raise BadRequest(f"must have at most {MOST_HEADERS} headers", param="headers")
    present_values = {name.lower(): value for name, value in (present or {}).items()}
    checked: dict[str, str] = {}
    for name, value in headers.items():
        _check_name(name, checked)
        checked[name] = _present_value(name, present_values) if value == REDACTED else _checked_value(name, value)
    return checked


def redacted_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as the API returns them: each value is `REDACTED`."""
    return dict.fromkeys(headers, REDACTED)


def _check_name(name: str, before: Mapping[str, str]) -> None:
    if len(name) > LONGEST_NAME or _NAME.fullmatch(name) is None:
        raise _refused(name, f"the name must have 1 to {LONGEST_NAME} characters: ASCII letters, digits, hyphens")
    lower = name.lower()
    if lower in _SET_BY_RINGBACK or lower.startswith(_PREFIXES_SET_BY_RINGBACK):
        reserved = f"{_listing(_SET_BY_RINGBACK)}, webhook-* and x-pi-*"
        raise _refused(name, f"Ringback sets {lower} itself; use any name but {reserved}")
    if lower in _CONNECTION_HEADERS:
        raise _refused(name, f"{lower} belongs to the connection; use any name but {_listing(_CONNECTION_HEADERS)}")
    if lower in map(str.lower, before):
        raise _refused(name, "the header is named twice; names are not case-sensitive")


def _checked_value(name: str, value: str) -> str:
    value = value.strip(" \t")
    if len(value) > LONGEST_VALUE or not value.isprintable():
        raise _refused(name, f"the value must have at most {LONGEST_VALUE} characters, and no control characters")
    return value


def _present_value(name: str, present_values: Mapping[str, str]) -> str:
    if name.lower() not in present_values:
        raise _refused(name, f"{REDACTED} stands for the present value, but this header has none; send the value")
    return present_values[name.lower()]


def _listing(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _refused(name: str, message: str) -> BadRequest:
    return BadRequest(message, param=f"headers.{name[:60]}")
