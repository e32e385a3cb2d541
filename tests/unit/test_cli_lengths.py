"""Durations and times on the command line."""

from datetime import UTC, datetime, timedelta

import pytest

from receiver.cli.failure import Failure, Status
from receiver.cli.inputs import moment, seconds


@pytest.mark.parametrize(
    ("given", "wanted"), [("90", 90), ("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800), ("0.5h", 1800)]
)
def test_a_duration_is_parsed(given: str, wanted: float) -> None:
    assert seconds(given, "--overlap") == wanted


@pytest.mark.parametrize("given", ["", "soon", "-5s", "5 h", "1w", "h", "٣h"])
def test_what_is_not_a_duration_is_refused(given: str) -> None:
    with pytest.raises(Failure) as failure:
        seconds(given, "--overlap")
    assert failure.value.status == Status.USAGE
    assert "--overlap" in failure.value.message


def test_a_duration_means_that_long_ago() -> None:
    then = datetime.fromisoformat(moment("2h") or "")
    ago = datetime.now(UTC) - then
    assert timedelta(hours=2) <= ago < timedelta(hours=2, minutes=1)


@pytest.mark.parametrize("given", ["2025-11-01T00:00:00Z", "1760000000", "yesterday"])
def test_any_other_time_is_left_to_the_service(given: str) -> None:
    assert moment(given) == given


def test_a_time_before_the_year_1_is_refused() -> None:
    with pytest.raises(Failure):
        moment("999999999999d")
