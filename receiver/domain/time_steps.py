"""Minutes, hours and days in UTC: where one begins, and of which of them a range of time consists."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from models import StatisticStep

LENGTHS = {
    StatisticStep.MINUTE: timedelta(minutes=1),
    StatisticStep.HOUR: timedelta(hours=1),
    StatisticStep.DAY: timedelta(days=1),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TimeSpan = tuple[StatisticStep, datetime, datetime]
"""All steps of one length from a time to another."""


def start_of(step: StatisticStep, moment: datetime) -> datetime:
    """Return when the minute, hour or day began that a time is in."""
    return moment - (moment - _EPOCH) % LENGTHS[step]


def end_of(step: StatisticStep, moment: datetime) -> datetime:
    """Return the first beginning of a step that is not before a time."""
    return moment + (_EPOCH - moment) % LENGTHS[step]


def starts_between(step: StatisticStep, since: datetime, until: datetime) -> Iterator[datetime]:
    """Yield each beginning of a step from `since`, which is one, to before `until`."""
    at = since
    while at < until:
        yield at
        at += LENGTHS[step]


def spans(smallest: StatisticStep, since: datetime, until: datetime) -> list[TimeSpan]:
    """Return the spans that a range consists of: whole days, then whole hours, and minutes, as far as is allowed.

    So a range of any length is few steps. `since` and `until` are beginnings of a step of the `smallest` length.
    """
    found = _spans(StatisticStep.DAY, smallest, since, until)
    return [(step, first, last) for step, first, last in found if first < last]


def _spans(step: StatisticStep, smallest: StatisticStep, since: datetime, until: datetime) -> list[TimeSpan]:
    if step == smallest:
        return [(step, since, until)]
    first, last = end_of(step, since), start_of(step, until)
    smaller = StatisticStep.HOUR if step == StatisticStep.DAY else StatisticStep.MINUTE
    if first >= last:
        return _spans(smaller, smallest, since, until)
    before, after = _spans(smaller, smallest, since, first), _spans(smaller, smallest, last, until)
    return [*before, (step, first, last), *after]
