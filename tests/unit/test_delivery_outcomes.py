"""What an answer to a delivery means."""

from datetime import UTC, datetime, timedelta

import pytest

from models import DeliveryStatus
from receiver.domain.delivery_outcomes import (
    DISABLED_AFTER,
    LONGEST_RETRY_AFTER,
    DeliveryOutcome,
    is_given_up,
    outcome_of,
)

DELAYS = (0.0, 5.0, 300.0)
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def judged(
    status: int | None, attempts: int = 1, retry_after: float | None = None, ok: bool = False
) -> DeliveryOutcome:
    return outcome_of(ok=ok, status_code=status, retry_after=retry_after, attempts=attempts, delays=DELAYS, jitter=0.5)


def test_a_success_is_the_end() -> None:
    assert judged(204, ok=True) == DeliveryOutcome(DeliveryStatus.DELIVERED)


@pytest.mark.parametrize("status", [None, 301, 400, 404, 500, 503])
def test_a_failure_is_tried_again_on_schedule(status: int | None) -> None:
    assert judged(status) == DeliveryOutcome(DeliveryStatus.PENDING, 5.0)
    assert judged(status, attempts=2) == DeliveryOutcome(DeliveryStatus.PENDING, 300.0)


def test_after_the_last_attempt_it_is_given_up() -> None:
    assert judged(500, attempts=3) == DeliveryOutcome(DeliveryStatus.DEAD)


@pytest.mark.parametrize("status", [429, 502, 504])
def test_some_answers_slow_the_endpoint_down(status: int) -> None:
    assert judged(status).slow_down


def test_retry_after_is_obeyed_within_bounds() -> None:
    assert judged(429, retry_after=60).delay == 60
    assert judged(503, retry_after=60).slow_down
    assert judged(429, retry_after=2).delay == 5
    assert judged(429, retry_after=1e9).delay == LONGEST_RETRY_AFTER


def test_gone_means_no_more() -> None:
    assert judged(410).gone
    assert judged(410, attempts=3) == DeliveryOutcome(DeliveryStatus.DEAD, gone=True)


def test_an_endpoint_is_given_up_after_five_days_without_a_success() -> None:
    assert not is_given_up(None, NOW)
    assert not is_given_up(NOW - DISABLED_AFTER + timedelta(seconds=1), NOW)
    assert is_given_up(NOW - DISABLED_AFTER, NOW)
