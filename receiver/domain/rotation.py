"""Which secrets of a subscription sign: the newest, and for a while those that it replaced. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

MOST_RETIRED = 5

Retired = Sequence[Mapping[str, Any]]
"""The newest first: `secret` (encrypted) and `until` (ISO 8601)."""


def retire(retired: Retired | None, secret: str | None, overlap: timedelta, now: datetime) -> list[dict[str, Any]]:
    """Return the list after a rotation: `secret` (encrypted) signs for `overlap` more.

    Without an overlap nothing but the new secret signs any more: whoever asks for that has lost one.
    """
    if not overlap or secret is None:
        return []
    newest = {"secret": secret, "until": (now + overlap).isoformat()}
    return [newest, *(dict(each) for each in _living(retired, now))][:MOST_RETIRED]


def live_retired(retired: Retired | None, now: datetime) -> list[str]:
    """Return the replaced secrets (encrypted) that still sign, the newest first."""
    return [each["secret"] for each in _living(retired, now)]


def _living(retired: Retired | None, now: datetime) -> list[Mapping[str, Any]]:
    return [each for each in retired or () if datetime.fromisoformat(each["until"]) > now]
