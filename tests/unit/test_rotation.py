"""Which secrets sign during and after a rotation."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.rotation import MOST_RETIRED, live_retired, retire

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DAY = timedelta(days=1)


def test_a_replaced_secret_signs_until_the_overlap_ends() -> None:
    retired = retire(None, "old", DAY, NOW)
    assert live_retired(retired, NOW) == ["old"]
    assert live_retired(retired, NOW + DAY - timedelta(seconds=1)) == ["old"]
    assert live_retired(retired, NOW + DAY) == []


def test_a_second_rotation_does_not_shorten_the_overlap_of_the_first() -> None:
    retired = retire(retire(None, "first", DAY, NOW), "second", DAY, NOW + DAY / 2)
    assert live_retired(retired, NOW + DAY / 2) == ["second", "first"]
    assert live_retired(retired, NOW + DAY) == ["second"]


def test_a_secret_that_no_longer_signs_is_removed_at_the_next_rotation() -> None:
    retired = retire(retire(None, "first", DAY, NOW), "second", DAY, NOW + 2 * DAY)
    assert [each["secret"] for each in retired] == ["second"]


def test_without_an_overlap_only_the_new_secret_signs() -> None:
    assert retire(retire(None, "first", DAY, NOW), "second", timedelta(0), NOW) == []


def test_without_a_previous_secret_nothing_is_retired() -> None:
    assert retire(None, None, DAY, NOW) == []


@given(st.lists(st.tuples(st.integers(0, 604800), st.integers(0, 604800)), max_size=20))
def test_after_any_number_of_rotations_the_list_is_short_and_newest_first(
    rotations: list[tuple[int, int]],
) -> None:
    retired, now = retire(None, None, DAY, NOW), NOW
    for number, (pause, overlap) in enumerate(rotations):
        now += timedelta(seconds=pause)
        retired = retire(retired, str(number), timedelta(seconds=overlap), now)
        assert len(retired) <= MOST_RETIRED
        live = [int(secret) for secret in live_retired(retired, now)]
        assert live == sorted(live, reverse=True)
        assert (number in live) == (overlap > 0)
