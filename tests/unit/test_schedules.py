"""The delays of polls, deliveries, retries and resends, by example and by property."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.schedules import PollSchedule, delivery_delay, poll_delay, resend_delay, retry_delay

STANDARD = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
SECONDS = st.floats(min_value=0.001, max_value=1e6)
JITTER = st.floats(min_value=0, max_value=1, exclude_max=True)
MIDDLE = 0.5


def test_poll_delays_grow_by_half_up_to_the_longest() -> None:
    delays = [poll_delay(poll_count, first=16, longest=100) for poll_count in range(7)]
    assert delays == [16, 24, 36, 54, 81, 100, 100]


@given(st.integers(0, 10**30), SECONDS, SECONDS)
def test_a_poll_delay_never_exceeds_the_longest(poll_count: int, first: float, longest: float) -> None:
    assert 0 < poll_delay(poll_count, first=first, longest=longest) <= longest


@given(st.integers(0, 3000), SECONDS, SECONDS)
def test_poll_delays_never_decrease(poll_count: int, first: float, longest: float) -> None:
    assert poll_delay(poll_count, first=first, longest=longest) <= poll_delay(
        poll_count + 1, first=first, longest=longest
    )


@given(SECONDS)
def test_the_number_of_polls_grows_slowly_with_the_age_of_a_task(first: float) -> None:
    age, poll_count = 0.0, 0
    while age < 1000 * first:
        age += poll_delay(poll_count, first=first, longest=1e9)
        poll_count += 1
    assert poll_count < 17


def test_deliveries_follow_the_schedule() -> None:
    seen = [delivery_delay(attempt, STANDARD, MIDDLE) for attempt in range(1, 11)]
    assert seen == [*map(pytest.approx, STANDARD[1:]), None]


@given(st.integers(1, 50), st.lists(st.floats(0, 1e6), min_size=1, max_size=20), JITTER)
def test_a_delivery_delay_is_within_a_fifth_of_the_schedule(attempt: int, delays: list[float], jitter: float) -> None:
    delay = delivery_delay(attempt, delays, jitter)
    if attempt >= len(delays):
        assert delay is None
    else:
        assert delay is not None
        assert delays[attempt] * 0.8 <= delay <= delays[attempt] * 1.2


def test_retry_delays_double() -> None:
    assert [retry_delay(attempt, 10, MIDDLE) for attempt in range(1, 5)] == [10, 20, 40, 80]


@given(st.integers(1, 10_000), SECONDS, JITTER)
def test_a_retry_delay_is_at_most_an_hour(attempt: int, backoff: float, jitter: float) -> None:
    assert 0 < retry_delay(attempt, backoff, jitter) <= 3600


@given(st.integers(1, 10), st.floats(0.001, 5), JITTER)
def test_a_retry_delay_is_within_a_fifth_of_the_backoff(attempt: int, backoff: float, jitter: float) -> None:
    exact = 2 ** (attempt - 1) * backoff
    assert min(3600, exact * 0.8) <= retry_delay(attempt, backoff, jitter) <= exact * 1.2


def test_without_a_backoff_a_retry_has_no_delay() -> None:
    assert retry_delay(3, 0, MIDDLE) == 0


def test_resend_delays_double_up_to_a_minute() -> None:
    delays = [resend_delay(tries, None, MIDDLE) for tries in range(1, 9)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


@given(st.integers(0, 10_000), st.none() | st.floats(0, allow_nan=False), JITTER)
def test_a_resend_delay_is_never_less_than_retry_after(tries: int, retry_after: float | None, jitter: float) -> None:
    delay = resend_delay(tries, retry_after, jitter)
    assert min(retry_after or 0, 3600) <= delay <= 3600
    assert delay >= 0.8


@given(polls=st.integers(0, 30), silent=st.floats(0, 100_000), least=st.floats(0, 5000))
def test_no_look_comes_sooner_than_a_provider_allows(polls: int, silent: float, least: float) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    schedule = PollSchedule(first=15, longest=300, timeout=86400, least=least)
    earliest = now + timedelta(seconds=least)
    heard_at = now - timedelta(seconds=silent)
    assert schedule.after_update(now) >= earliest
    assert schedule.after_poll(polls, heard_at, now) >= earliest
    assert schedule.after_recall(polls, heard_at, now) >= earliest
