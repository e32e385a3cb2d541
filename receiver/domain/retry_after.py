"""The `Retry-After` header, of providers and of subscribers."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


def retry_after_seconds(value: str | None, now: datetime, *, longest: float) -> float | None:
    """Return a `Retry-After` header as seconds from `now`, 0 to `longest`; None if it is missing or malformed.

    It is a number of seconds (RFC 9110, 10.2.3, allows no fraction, but one is accepted) or an HTTP date.
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
