"""Ranges of time as days, hours and minutes: they cover the range once, in few steps."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from models import StatisticStep
from receiver.domain.time_steps import LENGTHS, end_of, spans, start_of, starts_between

MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)).map(lambda each: each.replace(tzinfo=UTC))
STEPS = st.sampled_from((StatisticStep.MINUTE, StatisticStep.HOUR))


@given(MOMENTS, st.timedeltas(timedelta(0), timedelta(days=40)), STEPS)
def test_spans_cover_a_range_once_in_few_steps(moment: datetime, length: timedelta, step: StatisticStep) -> None:
    since, until = start_of(step, moment), end_of(step, moment + length)
    found = spans(step, since, until)
    at, steps = since, 0
    for each, first, last in found:
        assert first == at
        assert start_of(each, first) == first
        at = last
        steps += sum(1 for _ in starts_between(each, first, last))
    assert at == until
    assert steps <= length / LENGTHS[StatisticStep.DAY] + 2 * (23 + 59) + 2
