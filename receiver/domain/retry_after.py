"""The `Retry-After` header, from providers and from subscribers. Pure."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


def retry_after_seconds(value: str | None, now: datetime, *, longest: float) -> float | None:
    """Return a `Retry-After` header as seconds from `now`, 0 to `longest`; None where it says nothing.

    It is a number of seconds (a fraction is accepted, though RFC 9110, 10.2.3, has none) or an HTTP date.
    """
    if value is None:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), longest)
    try:
        moment = parsedate_to_datetime(value)
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), longest)
