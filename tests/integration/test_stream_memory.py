"""What an idle reader costs, measured on a real server: the bound of the bench, held by the suite."""

import sys

import pytest

from tests.bench.streams import measure_idle_streams

MOST_KIB_EACH = 25


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_two_thousand_idle_readers_take_little_memory() -> None:
    found = measure_idle_streams(2000)
    assert found.each <= MOST_KIB_EACH
