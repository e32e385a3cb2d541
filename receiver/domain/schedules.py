"""Delays before the next poll, delivery attempt, task attempt, create call or alert.

All are in seconds. `jitter` is a random number in [0, 1) that the caller draws.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct

_POLL_GROWTH = 1.5
_LONGEST_RETRY = 3600.0
_LONGEST_RESEND = 60.0
_FIRST_ALERT = 30.0
_FIRST_RECALL = 1.0
_LONGEST_RECALL = 60.0
LATER_LOOKS = (30.0, 600.0, 7200.0, 86400.0)
"""When a task that Ringback ended by itself is looked at again, in seconds after its end, if the provider answers."""
_UNANSWERED_LOOKS = (15.0, 900.0)
"""The shortest and the longest delay after such a look that the provider did not answer."""
_MONTH = 30 * 86400.0


class PollSchedule(Struct, frozen=True):
    """When to poll a task. All in seconds.

    `first` is the delay of the first poll after an update, `longest` the longest delay between two polls, `timeout` the
    time without any answer about a task after which it fails, and `limit` the time without any change after which it
    fails whatever is answered. `least` is how far apart looks at one task must be for its provider: it counts before
    the others.
    """

    first: float
    longest: float
    timeout: float
    limit: float = _MONTH
    least: float = 0.0

    def after_update(self, now: datetime) -> datetime:
        """Return when to poll a task that has just received an update."""
        return now + timedelta(seconds=max(min(self.first, self.timeout), self.least))

    def after_poll(self, poll_count: int, last_update_at: datetime, now: datetime) -> datetime:
        """Return when to poll again after the `poll_count`-th poll without a change; never later than the deadline."""
        return self._after_look(poll_delay(poll_count, first=self.first, longest=self.longest), last_update_at, now)

    def after_recall(self, poll_count: int, last_update_at: datetime, now: datetime) -> datetime:
        """Return when to look again at a task that its provider has not cancelled yet; never later than the deadline.

        The delays grow as those of `after_poll`, from 1 s to 60 s: until it has answered, it works for nothing.
        """
        first, longest = min(_FIRST_RECALL, self.first), min(_LONGEST_RECALL, self.longest)
        return self._after_look(poll_delay(poll_count, first=first, longest=longest), last_update_at, now)

    def _after_look(self, delay: float, last_update_at: datetime, now: datetime) -> datetime:
        due_at = min(now + timedelta(seconds=delay), max(self.deadline(last_update_at), now))
        return max(due_at, now + timedelta(seconds=self.least))

    def deadline(self, last_update_at: datetime) -> datetime:
        """Return when a task that has received no update since `last_update_at` times out."""
        return last_update_at + timedelta(seconds=self.timeout)

    def is_too_old(self, changed_at: datetime, now: datetime) -> bool:
        """Return whether a task that has not changed since `changed_at` may stay open no longer."""
        return now >= changed_at + timedelta(seconds=self.limit)


def poll_delay(poll_count: int, *, first: float, longest: float) -> float:
    """Return the delay before the next poll of a task that was polled `poll_count` times since its last update.

    Each delay is 1.5 times the one before, up to `longest`. Until then the delay is a fraction of the task's age, and
    the number of polls grows with the logarithm of the age.
    """
    return _grown(first, _POLL_GROWTH, poll_count, longest)


def later_look(looks: int, ended_at: datetime, now: datetime) -> datetime | None:
    """Return when to look at a task again that Ringback ended, after `looks` looks that were answered; None for never.

    An end of ours may be wrong: the provider was silent, or its list was behind. So the looks go on for a day.
    """
    if looks >= len(LATER_LOOKS):
        return None
    return max(ended_at + timedelta(seconds=LATER_LOOKS[looks]), now)


def look_after_silence(ended_at: datetime, now: datetime) -> datetime | None:
    """Return when to look again after a look without an answer: after half the time since the end, 15 s to 15 min.

    None when the end is a month ago.
    """
    age = (now - ended_at).total_seconds()
    shortest, longest = _UNANSWERED_LOOKS
    return None if age >= _MONTH else now + timedelta(seconds=min(max(age / 2, shortest), longest))


def exception_delay(count: int) -> float:
    """Return the delay before a task is acted on again after `count` exceptions (from 1) in a row: 1, 2, 4 ... 60."""
    return _grown(1.0, 2.0, count - 1, _LONGEST_RESEND)


def delivery_delay(attempt: int, delays: Sequence[float], jitter: float) -> float | None:
    """Return the delay between a delivery's `attempt`-th attempt (from 1) and the next one, varied by up to ±20 %.

    `delays` is the schedule: the delay before each attempt, the first included. Returns None when no attempt is left.
    """
    if attempt >= len(delays):
        return None
    return _spread(delays[attempt], jitter)


def retry_delay(attempt: int, backoff: float, jitter: float) -> float:
    """Return the delay between a task's failed `attempt`-th attempt (from 1) and the next one.

    It is `backoff`, doubled with each failure and varied by up to ±20 %, and at most an hour.
    """
    return min(_LONGEST_RETRY, _spread(_grown(backoff, 2.0, attempt - 1, _LONGEST_RETRY), jitter))


def resend_delay(tries: int, retry_after: float | None, jitter: float) -> float:
    """Return the delay before a create call is sent again, after `tries` calls (from 1) that created nothing.

    It is 1, 2, 4 ... 60, varied by up to ±20 % (60 at most), and not less than the provider's `retry_after`, of which
    at most an hour is obeyed.
    """
    grown = _grown(1.0, 2.0, max(tries - 1, 0), _LONGEST_RESEND)
    delay = min(_LONGEST_RESEND, _spread(grown, jitter))
    return max(delay, min(retry_after or 0.0, _LONGEST_RETRY))


def alert_delay(attempt: int) -> float:
    """Return the delay before an alert is sent again after its `attempt`-th attempt (from 1): 30, 60, 120 ... 3600."""
    return _grown(_FIRST_ALERT, 2.0, attempt - 1, _LONGEST_RETRY)


def _grown(first: float, factor: float, steps: int, longest: float) -> float:
    try:
        return min(longest, first * factor**steps)
    except OverflowError:
        return longest


def _spread(delay: float, jitter: float) -> float:
    return delay * (0.8 + 0.4 * jitter)
