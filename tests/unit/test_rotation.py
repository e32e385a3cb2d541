"""Which secrets sign during a rotation, and after it."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.rotation import MOST_RETIRED, live_retired, retire

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DAY = timedelta(days=1)


def test_a_replaced_secret_signs_until_its_time_and_no_longer() -> None:
    retired = retire(None, "old", DAY, NOW)
    assert live_retired(retired, NOW) == ["old"]
    assert live_retired(retired, NOW + DAY - timedelta(seconds=1)) == ["old"]
    assert live_retired(retired, NOW + DAY) == []


def test_a_second_rotation_keeps_the_first_one_s_secret_until_its_own_time() -> None:
    retired = retire(retire(None, "first", DAY, NOW), "second", DAY, NOW + DAY / 2)
    assert live_retired(retired, NOW + DAY / 2) == ["second", "first"]
    assert live_retired(retired, NOW + DAY) == ["second"]


def test_what_no_longer_signs_is_dropped_at_the_next_rotation() -> None:
    retired = retire(retire(None, "first", DAY, NOW), "second", DAY, NOW + 2 * DAY)
    assert [each["secret"] for each in retired] == ["second"]


def test_without_an_overlap_only_the_new_one_signs() -> None:
    assert retire(retire(None, "first", DAY, NOW), "second", timedelta(0), NOW) == []


def test_there_is_nothing_to_retire_where_there_was_no_secret() -> None:
    assert retire(None, None, DAY, NOW) == []


@given(st.lists(st.tuples(st.integers(0, 604800), st.integers(0, 604800)), max_size=20))
def test_however_often_it_is_rotated_the_list_is_short_and_the_newest_is_first(
    rotations: list[tuple[int, int]],
) -> None:
    retired, now = retire(None, None, DAY, NOW), NOW
    for number, (pause, overlap) in enumerate(rotations):
        now += timedelta(seconds=pause)
        retired = retire(retired, str(number), timedelta(seconds=overlap), now)
        assert len(retired) <= MOST_RETIRED
        alive = [int(secret) for secret in live_retired(retired, now)]
        assert alive == sorted(alive, reverse=True)
        assert (number in alive) == (overlap > 0)
