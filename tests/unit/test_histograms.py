"""Histograms: each duration is in one bucket, and a percentile is within the error that is said."""

from collections import Counter
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.histograms import ERROR, LONGEST_MS, bucket_of, merged, middle_of, percentile

SHARES = st.sampled_from((0.5, 0.95, 0.99))
DURATIONS = st.integers(0, LONGEST_MS) | st.integers(0, 100_000)


@given(DURATIONS)
def test_the_middle_of_a_bucket_is_near_each_duration_in_it(milliseconds: int) -> None:
    middle = middle_of(bucket_of(milliseconds))
    assert abs(middle - milliseconds) <= ERROR * milliseconds
    assert bucket_of(int(middle)) == bucket_of(milliseconds)
    assert bucket_of(milliseconds) <= bucket_of(milliseconds + 1)


def test_what_is_longer_than_the_longest_counts_as_that_long() -> None:
    assert bucket_of(LONGEST_MS * 50) == bucket_of(LONGEST_MS)
    assert bucket_of(-5) == 0


@given(
    st.lists(st.lists(DURATIONS, min_size=1, max_size=30), min_size=1, max_size=4), st.sampled_from((0.5, 0.95, 0.99))
)
def test_a_percentile_of_merged_histograms_is_near_that_of_all_durations(parts: list[list[int]], share: float) -> None:
    stored = [{str(bucket): n for bucket, n in Counter(map(bucket_of, part)).items()} for part in parts]
    everything = sorted(each for part in parts for each in part)
    true = everything[ceil(share * len(everything)) - 1]
    found = percentile(merged(stored), share)
    assert found is not None
    assert abs(found - true) <= ERROR * true


def test_of_nothing_there_is_no_percentile() -> None:
    assert percentile(Counter(), 0.5) is None
    assert percentile(Counter({3: 0}), 0.5) is None
