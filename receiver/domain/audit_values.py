"""What the audit log shows of a thing that was changed: its fields, only those that differ, and never a secret.

Secrets and the values of headers are encrypted columns; the log only says that one was set or changed. A URL may have a
token in it, where many services put theirs: what stands in its query, in front of its host, and in parts of its path
that look random is left out.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import orjson

from receiver.domain.redaction import REDACTED
from receiver.domain.representations import iso

Fields = Mapping[str, Any]
Difference = tuple[dict[str, Any] | None, dict[str, Any] | None]
"""The changed fields before and after; None where there is nothing."""

_MOST_BYTES = 2_000
"""A longer value is shown as its length."""
_WEBHOOK = (
    "endpoint_url",
    "is_active",
    "format",
    "event_types",
    "filters",
    "description",
    "rate_limit",
    "max_in_flight",
    "ordered",
    "signature",
    "disabled_reason",
)
_WEBHOOK_SECRETS = ("secret", "headers")
_KEY = ("name", "scope", "hint", "rate_limit")
_TOKEN = re.compile(r"(?=[^/]*\d)[\w.~%-]{16,}|[\w.~%-]{32,}")
"""A part of a path that looks random: long, and with a digit or longer still."""


def webhook_difference(before: Fields | None, after: Fields | None) -> Difference:
    """Return what differs between two rows of a webhook; None for a row that is not there."""
    was, became = _difference(_shown(before, _WEBHOOK), _shown(after, _WEBHOOK))
    for name in _WEBHOOK_SECRETS:
        old, new = (None if row is None else row.get(name) for row in (before, after))
        if old != new:
            was[name] = None if old is None else "set"
            became[name] = None if new is None else "set" if old is None else "changed"
    return _with_urls_masked(was, became, before is None, after is None)


def key_difference(before: Fields | None, after: Fields | None) -> Difference:
    """Return what differs between two rows of an API key; None for a row that is not there."""
    return difference(*(None if row is None else _key(row) for row in (before, after)))


def difference(before: Fields | None, after: Fields | None) -> Difference:
    """Return the fields that differ, without those that are null in both. The fields must not have secrets."""
    was, became = _difference(before or {}, after or {})
    return (None if before is None else was, None if after is None else became)


def masked_url(url: str) -> str:
    """Return a URL without what may be a token: user and password, values of the query, random parts of the path."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")
    except ValueError:
        return REDACTED
    path = "/".join(REDACTED if _TOKEN.fullmatch(part) else part for part in parts.path.split("/"))
    query = "&".join(name + equals + (REDACTED if value else "") for name, equals, value in _pairs(parts.query))
    authority = f"{REDACTED}@{host[2]}" if host[1] else host[2]
    return urlunsplit((parts.scheme, authority, path, query, REDACTED if parts.fragment else ""))


def _pairs(query: str) -> list[tuple[str, str, str]]:
    """Return the pairs of a query; a part without `=` may be a token as a whole, so its name counts as a value."""
    pairs = [part.partition("=") for part in query.split("&")] if query else []
    return [(name, equals, value) if equals else ("", "", name) for name, equals, value in pairs]


def _with_urls_masked(was: dict[str, Any], became: dict[str, Any], is_new: bool, is_gone: bool) -> Difference:
    for fields in (was, became):
        if fields.get("endpoint_url"):
            fields["endpoint_url"] = masked_url(fields["endpoint_url"])
    if not is_new and became.get("endpoint_url") and became["endpoint_url"] == was.get("endpoint_url"):
        became["endpoint_url"] += " (changed)"
    return (None if is_new else was, None if is_gone else became)


def _key(row: Fields) -> dict[str, Any]:
    return {**_shown(row, _KEY), "expires_at": iso(row.get("expires_at"))}


def _shown(row: Fields | None, names: tuple[str, ...]) -> dict[str, Any]:
    return {} if row is None else {name: row.get(name) for name in names}


def _difference(before: Fields, after: Fields) -> tuple[dict[str, Any], dict[str, Any]]:
    was: dict[str, Any] = {}
    became: dict[str, Any] = {}
    for name in [*before, *(name for name in after if name not in before)]:
        if before.get(name) != after.get(name):
            was[name], became[name] = _bounded(before.get(name)), _bounded(after.get(name))
    return was, became


def _bounded(value: Any) -> Any:
    size = len(orjson.dumps(value, default=str))
    return value if size <= _MOST_BYTES else f"({size} bytes)"
