"""The clocks: which one counts where, and how the service's clock follows another."""

import ast
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import clock
from receiver.clock import (
    JUMP_SECONDS,
    SLEW,
    AnchoredClock,
    earliest_elsewhere,
    signed_time,
    utc_now,
    wall_now,
    wall_text,
)

RECEIVER = Path(clock.__file__).parent
NOT_THE_SERVICE = ("cli", "sandbox")
"""Programs of their own, which go by the wall clock of the person at the machine."""
WALL_CLOCKS = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}


class Monotone:
    """A monotone clock that the test moves on."""

    def __init__(self) -> None:
        self.seconds = 5.0

    def __call__(self) -> float:
        return self.seconds


def wall_clocks_in(path: Path) -> list[str]:
    return [
        f"{path.relative_to(RECEIVER)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in WALL_CLOCKS
    ]


def test_the_service_asks_for_the_time_in_one_place() -> None:
    places = [
        place
        for path in sorted(RECEIVER.rglob("*.py"))
        if path.relative_to(RECEIVER).parts[0] not in NOT_THE_SERVICE
        for place in wall_clocks_in(path)
    ]
    # The keeper compares the wall clock with the others.
    assert {place.split(":")[0] for place in places} == {"clock.py", "workers/clock_keeper.py"}


@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.floats(-1e6, 1e6)),
        min_size=1,
        max_size=20,
    )
)
def test_a_clock_that_follows_another_never_goes_back_and_keeps_its_rate(steps: list[tuple[float, float]]) -> None:
    monotone = Monotone()
    followed = AnchoredClock(1000.0, monotone)
    for elapsed, error in steps:
        before = followed.now()
        followed.approach(before + error)
        monotone.seconds += elapsed
        gained = followed.now() - before
        assert (1 - SLEW) * elapsed - 1e-3 <= gained <= (1 + SLEW) * elapsed + 1e-3


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_an_hour_is_followed_in_ten_and_not_beyond(jump: float) -> None:
    monotone = Monotone()
    followed = AnchoredClock(0.0, monotone)
    followed.approach(jump)
    monotone.seconds += 18_000
    assert followed.now() == pytest.approx(18_000 + jump / 2)
    monotone.seconds += 18_000
    assert followed.now() == pytest.approx(36_000 + jump)
    monotone.seconds += 18_000
    assert followed.now() == pytest.approx(54_000 + jump)


def test_a_clock_is_steady_from_when_it_was_set_last() -> None:
    monotone = Monotone()
    followed = AnchoredClock(0.0, monotone)
    monotone.seconds += 60
    followed.approach(99.0)
    assert followed.steady_seconds() == 60
    followed.set(99.0)
    assert followed.steady_seconds() == 0


@pytest.mark.parametrize("wrong", [3600.0, -3600.0])
def test_a_rows_time_is_compared_with_others_times_by_the_earlier_clock(
    wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "SERVICE_CLOCK", AnchoredClock(wall_now().timestamp() + wrong))
    written = utc_now() - timedelta(minutes=5)
    other = wall_now() - timedelta(minutes=5)
    assert abs(earliest_elsewhere(written) - min(written, other)) < timedelta(seconds=1)
    from_a_clock_that_was_set_back = utc_now() + timedelta(hours=1)
    assert earliest_elsewhere(from_a_clock_that_was_set_back) < wall_now() - timedelta(hours=20)


@pytest.mark.parametrize("apart", [0.0, JUMP_SECONDS - 0.5, 0.5 - JUMP_SECONDS])
def test_what_is_signed_is_the_rows_time_while_both_clocks_agree(apart: float) -> None:
    moment = wall_now() + timedelta(seconds=apart)
    assert signed_time(moment) == moment


@pytest.mark.parametrize("wrong", [3600.0, -3600.0, JUMP_SECONDS + 1])
def test_what_is_signed_is_the_wall_clocks_time_once_the_clocks_have_come_apart(wrong: float) -> None:
    before = wall_now()
    assert before <= signed_time(before + timedelta(seconds=wrong)) <= wall_now()


def test_the_wall_clock_as_text_is_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    before, text, after = wall_now(), wall_text(), wall_now()
    assert text.endswith("Z")
    assert before <= datetime.fromisoformat(text) <= after
    for nanoseconds, shown in ((0, "1970-01-01T00:00:00.000000Z"), (1_999_999_999, "1970-01-01T00:00:01.999999Z")):
        monkeypatch.setattr(time, "time_ns", lambda nanoseconds=nanoseconds: nanoseconds)
        assert wall_text() == shown
