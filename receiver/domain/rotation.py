"""The rotation of a subscription's secret: a replaced secret still signs during the overlap."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

MOST_RETIRED = 5

Retired = Sequence[Mapping[str, Any]]
"""The replaced secrets, newest first, each with `secret` (encrypted) and `until` (ISO 8601)."""


def retire(retired: Retired | None, secret: str | None, overlap: timedelta, now: datetime) -> list[dict[str, Any]]:
    """Return the retired secrets after a rotation: `secret` (encrypted) continues to sign for `overlap`.

    Without an overlap the list is empty, so that only the new secret signs. That is how to replace a leaked secret.
    """
    if not overlap or secret is None:
        return []
    newest = {"secret": secret, "until": (now + overlap).isoformat()}
    return [newest, *(dict(each) for each in live(retired, now))][:MOST_RETIRED]


def live_retired(retired: Retired | None, now: datetime) -> list[str]:
    """Return the replaced secrets (encrypted) that still sign, newest first."""
    return [each["secret"] for each in live(retired, now)]


def live(retired: Retired | None, now: datetime) -> list[Mapping[str, Any]]:
    """Return the replaced secrets that still sign, newest first."""
    return [each for each in retired or () if datetime.fromisoformat(each["until"]) > now]
