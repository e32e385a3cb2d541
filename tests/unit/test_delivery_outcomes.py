"""The outcome of a delivery attempt."""

from datetime import UTC, datetime, timedelta

import pytest

from models import DeliveryStatus
from receiver.domain.delivery_outcomes import (
    DISABLED_AFTER,
    LONGEST_RETRY_AFTER,
    DeliveryOutcome,
    has_failed_too_long,
    outcome_of,
)

DELAYS = (0.0, 5.0, 300.0)
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def outcome(
    status: int | None, attempts: int = 1, retry_after: float | None = None, ok: bool = False
) -> DeliveryOutcome:
    return outcome_of(ok=ok, status_code=status, retry_after=retry_after, attempts=attempts, delays=DELAYS, jitter=0.5)


def test_a_success_settles_a_delivery() -> None:
    assert outcome(204, ok=True) == DeliveryOutcome(DeliveryStatus.DELIVERED)


@pytest.mark.parametrize("status", [None, 301, 400, 404, 500, 503])
def test_a_failed_delivery_is_retried_on_schedule(status: int | None) -> None:
    assert outcome(status) == DeliveryOutcome(DeliveryStatus.PENDING, 5.0)
    assert outcome(status, attempts=2) == DeliveryOutcome(DeliveryStatus.PENDING, 300.0)


def test_after_the_last_attempt_a_delivery_is_dead() -> None:
    assert outcome(500, attempts=3) == DeliveryOutcome(DeliveryStatus.DEAD)


@pytest.mark.parametrize("status", [429, 502, 504])
def test_some_status_codes_slow_the_endpoint_down(status: int) -> None:
    assert outcome(status).slow_down


def test_retry_after_is_obeyed_up_to_a_limit() -> None:
    assert outcome(429, retry_after=60).delay == 60
    assert outcome(503, retry_after=60).slow_down
    assert outcome(429, retry_after=2).delay == 5
    assert outcome(429, retry_after=1e9).delay == LONGEST_RETRY_AFTER


def test_status_410_means_that_the_endpoint_is_gone() -> None:
    assert outcome(410).gone
    assert outcome(410, attempts=3) == DeliveryOutcome(DeliveryStatus.DEAD, gone=True)


def test_an_endpoint_has_failed_too_long_after_five_days_without_a_success() -> None:
    assert not has_failed_too_long(None, NOW)
    assert not has_failed_too_long(NOW - DISABLED_AFTER + timedelta(seconds=1), NOW)
    assert has_failed_too_long(NOW - DISABLED_AFTER, NOW)
