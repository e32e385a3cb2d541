"""Histograms of durations in fixed buckets: those of two times or models are merged by adding their numbers.

The buckets are 1 ms wide below 32 ms. Above that each doubling is divided into 16 of equal width, so that a bucket is
at most a sixteenth as wide as the durations in it are long. A percentile is given as the middle of its bucket: it
differs from the true one by at most `ERROR`, a thirty-second. Durations above `LONGEST_MS` count as that long.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

SUB_BUCKETS = 16
_EXACT_MS = 2 * SUB_BUCKETS
DOUBLINGS = 26
LONGEST_MS = (_EXACT_MS << DOUBLINGS) - 1
"""A little less than 25 days."""
ERROR = 1 / _EXACT_MS
"""By how much of itself a percentile may differ from the true one."""


def bucket_of(milliseconds: int) -> int:
    """Return the number of the bucket that a duration is in."""
    shown = min(max(milliseconds, 0), LONGEST_MS)
    doubling = max(shown.bit_length() - SUB_BUCKETS.bit_length(), 0)
    return doubling * SUB_BUCKETS + (shown >> doubling)


def middle_of(bucket: int) -> float:
    """Return the duration in the middle of a bucket, in milliseconds."""
    if bucket < _EXACT_MS:
        return float(bucket)
    doubling = bucket // SUB_BUCKETS - 1
    return ((bucket - doubling * SUB_BUCKETS) << doubling) + ((1 << doubling) - 1) / 2


def merged(histograms: Iterable[Mapping[str, int]]) -> Counter[int]:
    """Return the sum of histograms in the form that they are stored in: numbers by the bucket's number as text."""
    total: dict[str, int] = {}
    for each in histograms:
        for bucket, number in each.items():
            total[bucket] = total.get(bucket, 0) + number
    return Counter({int(bucket): number for bucket, number in total.items()})


def percentile(histogram: Mapping[int, int], share: float) -> float | None:
    """Return the duration in milliseconds that this share of all is not longer than; None if there are none."""
    total = sum(number for number in histogram.values() if number > 0)
    wanted, seen = share * total, 0
    for bucket in sorted(histogram):
        seen += max(histogram[bucket], 0)
        if total and seen >= wanted:
            return middle_of(bucket)
    return None
