"""Bulk actions as JSON values, and their filters as they are stored."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from receiver.domain.representations import Fields, iso

_TIMES = ("created_after", "created_before")


def native_bulk_action(action: Fields) -> dict[str, Any]:
    """Return a bulk action with its progress. Times are ISO 8601 in UTC, or null."""
    failed = action["failed"] or {}
    return {
        "object": "bulk_action",
        "id": action["uid"],
        "kind": action["kind"],
        "requested_by": action["requested_by"],
        "status": action["status"],
        "filter": action["filter"],
        "matched": action["matched"],
        "done": action["done"],
        "failed": sum(failed.values()),
        "failed_by_code": failed,
        "created_at": iso(action["created_at"]),
        "ended_at": iso(action["ended_at"]),
    }


def stored_filter(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a filter as it is stored: what is given of it, with times as text."""
    return {
        name: iso(value) if isinstance(value, datetime) else value
        for name, value in given.items()
        if value is not None and value != {}
    }


def read_filter(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored filter with its times as times."""
    return {name: datetime.fromisoformat(value) if name in _TIMES else value for name, value in stored.items()}
