"""Times as pages show them: in UTC; the full time and the reader's own on hover."""

from datetime import UTC, datetime

from markupsafe import Markup, escape

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def parse(time: str) -> datetime:
    """Return a time as the API writes it."""
    return datetime.fromisoformat(time)


def moment(time: str | None, *, fine: bool = False) -> Markup:
    """Return a time as the API writes it as an element: day, month and time; all of it on hover.

    It has milliseconds too if it is `fine`.
    """
    if time is None:
        return Markup("")
    at = parse(time).astimezone(UTC)
    clock = f"{at:%H:%M:%S}" + (f".{at.microsecond // 1000:03}" if fine else "")
    return Markup('<time datetime="{}" title="{}"><span>{}</span> {}</time>').format(
        escape(time), f"{at:%Y-%m-%d %H:%M:%S.%f} UTC", f"{at:%d %b}", clock
    )


def duration(seconds: float | None) -> str:
    """Return a length of time with its two greatest units."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def between(start: str | None, end: str | None, now: datetime) -> float | None:
    """Return the seconds from one time to another, or to now; None if it has not begun."""
    if start is None:
        return None
    return ((parse(end) if end is not None else now) - parse(start)).total_seconds()
