"""What an answer to a delivery means (contracts/standard-webhooks.md). Pure; jitter is an argument."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from models import DeliveryStatus
from receiver.domain.schedules import delivery_delay

GONE = 410
SLOW_DOWN = frozenset({429, 502, 504})
LONGEST_RETRY_AFTER = 86400.0
"""Seconds; an endpoint that asks for more is asked again by then."""
DISABLED_AFTER = timedelta(days=5)
"""An endpoint that failed every time for so long is disabled."""


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """What becomes of the delivery, and of its endpoint's pace.

    `delay` is the seconds to the next attempt, None when there is none; `slow_down` asks for a pause of the whole
    endpoint; `gone` says that it wants no more.
    """

    status: DeliveryStatus
    delay: float | None = None
    slow_down: bool = False
    gone: bool = False


_DELIVERED = DeliveryOutcome(DeliveryStatus.DELIVERED)


def outcome_of(
    *,
    ok: bool,
    status_code: int | None,
    retry_after: float | None,
    attempts: int,
    delays: Sequence[float],
    jitter: float,
) -> DeliveryOutcome:
    """Say what an answer means after the `attempts`-th attempt of its schedule; `jitter` is in [0, 1)."""
    if ok:
        return _DELIVERED
    slow_down = status_code in SLOW_DOWN or retry_after is not None
    delay = delivery_delay(attempts, delays, jitter)
    if status_code == GONE:
        return DeliveryOutcome(DeliveryStatus.PENDING if delay is not None else DeliveryStatus.DEAD, delay, gone=True)
    if delay is None:
        return DeliveryOutcome(DeliveryStatus.DEAD, slow_down=slow_down)
    return DeliveryOutcome(DeliveryStatus.PENDING, max(delay, min(retry_after or 0.0, LONGEST_RETRY_AFTER)), slow_down)


def is_given_up(failing_since: datetime | None, now: datetime) -> bool:
    """Say whether an endpoint that has failed since then, without one success, is to be disabled."""
    return failing_since is not None and now - failing_since >= DISABLED_AFTER
