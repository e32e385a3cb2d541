"""Time, as the house uses it: aware datetimes in UTC. Pure rules take `now` as an argument instead."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present moment, in UTC."""
    return datetime.now(UTC)
