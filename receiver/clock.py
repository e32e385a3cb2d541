"""Which clock counts where, and the present moment by each.

A machine has a wall clock, which is set by people and by NTP and may jump by any amount, and a monotone clock, which
only counts seconds and never jumps. Two machines have two wall clocks, which may disagree by any amount.

| what | clock | here |
|---|---|---|
| waits, time-outs and caches within a process | monotone | `monotonic`, the event loop's own |
| what is in rows: `due_at`, leases, schedules, time-outs, retention, `created_at` | the service's | `utc_now` |
| what outsiders tell or verify: dates in `Retry-After`, the provider's times, their signatures | wall | `wall_now` |
| signatures of our own, of moments that are also in rows | the service's while both agree, else wall | `signed_time` |
| the shared rate limit | the database's | `clock_timestamp()` in its statements |
| the time in an id (UUIDv7) | wall | only an order that people see; no rule reads it |
| log records | wall | `wall_text` |

The service's clock is the monotone clock, counted from an anchor. So a wall clock that is set while a create call or a
lease is in progress changes nothing. The anchor is:

- on PostgreSQL the database's clock, measured with its round trip and again every few seconds. All processes measure
  the same clock, so a replica whose wall clock is wrong takes no lease early and fails no task.
- on SQLite, where one process has the file, the wall clock at the start. If the wall clock is set later, the service's
  clock follows it slowly: it runs faster or slower by `SLEW` until both agree, and so never goes back.

`receiver.workers.clock_keeper` measures, notices jumps, logs and counts them. Pure rules ask no clock at all: they take
`now` as an argument.
"""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial

JUMP_SECONDS = 2.0
"""Two clocks that have come apart by more than this have jumped; less than this is drift."""
SLEW = 0.1
"""How much faster or slower than the monotone clock the service's clock runs while it follows another: an hour takes
ten hours, and no time-out or lease is shorter or longer by more than this share of it."""
_NEGLIGIBLE_SECONDS = 0.001
_SECOND_LENGTH = len("2026-11-28T23:50:00")
_LONGEST_STEP_BACK = timedelta(days=1)

# Linux: CLOCK_MONOTONIC stands still while the machine sleeps.
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)
monotonic: Callable[[], float] = time.monotonic if _BOOTTIME is None else partial(time.clock_gettime, _BOOTTIME)
"""Return the seconds of a clock that never jumps and, where the system has one, goes on while the machine sleeps."""


def wall_now() -> datetime:
    """Return the time by this machine's wall clock, in UTC."""
    return datetime.fromtimestamp(time.time(), UTC)


@lru_cache(maxsize=4)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:_SECOND_LENGTH]


def wall_text() -> str:
    """Return the time by this machine's wall clock as text, to a microsecond: `2026-11-28T23:50:00.000001Z`."""
    # Of a record of the log this was a third of its cost: the part up to the second is made once for each.
    second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second_text(second)}.{nanoseconds // 1000:06d}Z"


class AnchoredClock:
    """A clock that counts monotone seconds from an anchor. All times are seconds since 1970 in UTC.

    `monotone` is the clock that it counts by.
    """

    def __init__(self, now: float, monotone: Callable[[], float] = monotonic) -> None:
        self._monotone = monotone
        self.set(now)

    def now(self) -> float:
        """Return the present time."""
        return self._at(self._monotone())

    def set(self, now: float) -> None:
        """Make it `now` at once."""
        self._anchor, self._anchored_at, self._behind = now, self._monotone(), 0.0
        self._steady_from = self._anchored_at

    def approach(self, now: float) -> None:
        """Follow a clock that shows `now`, as slowly as `SLEW` says; the time never goes back."""
        moment = self._monotone()
        self._anchor, self._anchored_at = self._at(moment), moment
        behind = now - self._anchor
        self._behind = behind if abs(behind) > _NEGLIGIBLE_SECONDS else 0.0

    def steady_seconds(self) -> float:
        """Return for how long this clock was not set."""
        return self._monotone() - self._steady_from

    def _at(self, moment: float) -> float:
        elapsed = moment - self._anchored_at
        if not self._behind:
            return self._anchor + elapsed
        return self._anchor + elapsed + math.copysign(min(abs(self._behind), elapsed * SLEW), self._behind)


def utc_now() -> datetime:
    """Return the present time by the service's clock, in UTC."""
    return datetime.fromtimestamp(SERVICE_CLOCK.now(), UTC)


def earliest_elsewhere(moment: datetime) -> datetime:
    """Return the earliest time that another machine may have shown at a `moment` of the service's clock.

    To compare a row's time with times that others wrote, such as the provider's: the service's clock and this machine's
    wall clock may differ for hours after one of them was set, and either may be the right one. A moment in the future
    was written before a clock was set back by an unknown amount: for it this is a day ago.
    """
    present = utc_now()
    return min(moment, wall_now() - (present - moment)) if moment <= present else present - _LONGEST_STEP_BACK


def signed_time(moment: datetime) -> datetime:
    """Return the time that outsiders are told of a present `moment` of the service's clock.

    It is that moment, so that a row with it says what was signed, unless the service's clock and this machine's wall
    clock have come apart: then it is the wall clock's.
    """
    wall = wall_now()
    return moment if abs((wall - moment).total_seconds()) <= JUMP_SECONDS else wall


SERVICE_CLOCK = AnchoredClock(time.time())
"""The service's clock of this process; `receiver.workers.clock_keeper` sets it when the service starts."""
