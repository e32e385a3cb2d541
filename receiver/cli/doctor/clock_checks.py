"""The clock of this machine, against the database's and a provider's.

Signatures carry a time, which receivers accept for some minutes; leases, polls and the purge go by it too.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from receiver.cli.doctor.result import DoctorResult, bad, look, ok, skipped
from receiver.clock import wall_now
from receiver.settings import Settings
from receiver.storage.reading import ReadBeside

_NAME = "clock"
_NEAR, _FAR = 5.0, 60.0
"""Seconds. An HTTP date has whole seconds, and the answer takes some time to arrive."""
_MEND = "set this machine's clock, and let NTP keep it (timedatectl set-ntp true)"


async def clock_of_database(settings: Settings, read: ReadBeside) -> DoctorResult:
    """Compare with PostgreSQL's clock; with SQLite, where there is none, with the newest event."""
    from receiver.storage.clock import newest_time, server_time

    if not settings.is_sqlite:
        (row,) = await read(server_time())
        return compared("the database's", row["now"])
    rows = await read(newest_time())
    if not rows:
        return skipped(_NAME, "there is no event yet to compare it with")
    ahead = (rows[0]["newest"].astimezone(UTC) - wall_now()).total_seconds()
    if ahead > _NEAR:
        found = f"the newest event is {ahead:.0f} s in the future: the clock was set back, or was ahead then"
        return bad(_NAME, found, _MEND)
    return ok(_NAME, "no event is in the future")


def clock_of_provider(date: str | None) -> DoctorResult:
    """Compare with the `Date` of a provider's answer."""
    try:
        there = parsedate_to_datetime(date or "").astimezone(UTC)
    except ValueError:
        return skipped(_NAME, "the provider's answer has no date to compare it with")
    return compared("the provider's", there)


def compared(whose: str, there: datetime) -> DoctorResult:
    """Compare this machine's clock with another one, which was read just now."""
    ahead = (wall_now() - there).total_seconds()
    if abs(ahead) <= _NEAR:
        return ok(_NAME, f"agrees with {whose}")
    found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {whose}"
    return (bad if abs(ahead) > _FAR else look)(_NAME, found, _MEND)
