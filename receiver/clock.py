"""The current time as an aware datetime in UTC. Pure rules do not call this: they take `now` as an argument."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)
