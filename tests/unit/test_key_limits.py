"""The token bucket of each API key: what it allows, what it reports, and how little it stores."""

import time

import pytest

from receiver.api import limits
from receiver.api.limits import KeyLimit, KeyLimits
from receiver.errors import RateLimited, SettingsError
from receiver.settings import load_settings


class Clock:
    """A clock that a test moves, in seconds."""

    def __init__(self) -> None:
        self.now = 7_000_000_123_456_789

    def __call__(self) -> int:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def allowed(counted: KeyLimits, times: int, key_id: int = 1, rate_limit: float | None = None) -> int:
    """Make requests; return how many were allowed."""
    return sum(counted.take(key_id, rate_limit).retry_after is None for _ in range(times))


@pytest.mark.parametrize(
    ("rate", "burst"),
    [(KeyLimit.of(1000), 1000), (KeyLimit.of(600, 60), 600), (KeyLimit.of(2.5), 3), (KeyLimit.of(0.01), 1)],
    ids=["1000 a second", "600 a minute", "2.5 a second", "1 in 100 seconds"],
)
def test_a_burst_at_once_and_then_one_request_per_interval(clock: Clock, rate: KeyLimit, burst: int) -> None:
    counted = KeyLimits(rate, clock)
    assert allowed(counted, burst + 5) == burst
    for _ in range(50):
        clock.now += rate.interval
        assert allowed(counted, 2) == 1
    clock.now += 10 * burst * rate.interval
    assert allowed(counted, burst + 5) == burst


def test_the_status_counts_down_and_has_the_time_when_the_bucket_is_full(clock: Clock) -> None:
    counted = KeyLimits(KeyLimit.of(4, 8), clock)
    now = time.time()
    standings = [counted.take(1, None) for _ in range(5)]
    assert [each.limit for each in standings] == [4] * 5
    assert [each.remaining for each in standings] == [3, 2, 1, 0, 0]
    assert [each.retry_after for each in standings] == [None, None, None, None, 2]
    for each, seconds in zip(standings, (2, 4, 6, 8, 8), strict=True):
        assert now + seconds <= each.reset_at <= time.time() + seconds + 1
    clock.move(5)
    assert counted.take(1, None).remaining == 1


def test_a_refused_request_does_not_count(clock: Clock) -> None:
    counted = KeyLimits(KeyLimit.of(1), clock)
    assert allowed(counted, 1000) == 1
    clock.move(1)
    assert allowed(counted, 1) == 1


def test_a_request_over_the_limit_is_an_error_with_retry_after(clock: Clock) -> None:
    counted = KeyLimits(KeyLimit.of(1, 30), clock)
    counted.take(1, None).check()
    with pytest.raises(RateLimited) as caught:
        counted.take(1, None).check()
    assert (caught.value.retry_after, caught.value.status, caught.value.code) == (30, 429, "rate_limit_exceeded")


def test_each_key_has_a_bucket_and_its_own_limit_overrides_the_default(clock: Clock) -> None:
    counted = KeyLimits(KeyLimit.of(3), clock)
    assert allowed(counted, 10, key_id=1) == 3
    assert allowed(counted, 10, key_id=2, rate_limit=5) == 5
    assert allowed(counted, 10, key_id=3, rate_limit=0.5) == 1


def test_with_many_keys_the_least_recently_used_are_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MOST_KEYS", 10)
    counted = KeyLimits(KeyLimit.of(1), clock)
    for key_id in range(1000):
        assert allowed(counted, 2, key_id) == 1
    assert len(counted._buckets) == 10
    assert allowed(counted, 1, 999) == 0
    assert allowed(counted, 1, 1) == 1


@pytest.mark.parametrize(
    ("setting", "requests"), [(None, (1000, 1)), ("5/s", (5, 1)), ("600/m", (600, 60)), ("1.5/h", (1.5, 3600))], ids=str
)
def test_the_setting_is_a_number_of_requests_and_a_time(setting: str | None, requests: tuple[float, float]) -> None:
    environment = {} if setting is None else {"RINGBACK_KEY_RATE": setting}
    assert load_settings(environment, env_file=None).key_requests == requests


@pytest.mark.parametrize("setting", ["10", "0/s", "-1/s", "1/d", "x"])
def test_a_setting_that_is_not_a_rate_is_refused(setting: str) -> None:
    with pytest.raises(SettingsError, match="RINGBACK_KEY_RATE: must be a number and a period"):
        load_settings({"RINGBACK_KEY_RATE": setting}, env_file=None)
