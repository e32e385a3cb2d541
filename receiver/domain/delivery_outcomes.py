"""What the response to a delivery attempt means (`receiver/api/CONTRACTS.md`, "Standard Webhooks")."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from models import DeliveryStatus
from receiver.domain.schedules import delivery_delay

GONE = 410
SLOW_DOWN = frozenset({429, 502, 504})
LONGEST_RETRY_AFTER = 86400.0
"""The longest `Retry-After` that is obeyed, in seconds."""
DISABLED_AFTER = timedelta(days=5)
"""An endpoint whose every attempt has failed for this long is disabled."""


class DeliveryOutcome(Struct, frozen=True):
    """What an attempt changes: the status of the delivery, and what its endpoint asks for.

    `delay` is the number of seconds until the next attempt, None when the delivery is settled. `slow_down` means that
    the whole endpoint must be paused, and `gone` that it wants no further deliveries.
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
    """Return the outcome of the `attempts`-th attempt of a delivery whose schedule is `delays`.

    `status_code` is None when there was no response. `retry_after` is in seconds; `jitter` is in [0, 1).
    """
    if ok:
        return _DELIVERED
    slow_down = status_code in SLOW_DOWN or retry_after is not None
    delay = delivery_delay(attempts, delays, jitter)
    if status_code == GONE:
        return DeliveryOutcome(DeliveryStatus.PENDING if delay is not None else DeliveryStatus.DEAD, delay, gone=True)
    if delay is None:
        return DeliveryOutcome(DeliveryStatus.DEAD, slow_down=slow_down)
    return DeliveryOutcome(DeliveryStatus.PENDING, max(delay, min(retry_after or 0.0, LONGEST_RETRY_AFTER)), slow_down)


def has_failed_too_long(failing_since: datetime | None, now: datetime) -> bool:
    """Return whether to disable an endpoint whose attempts have all failed since `failing_since` (None: none has)."""
    return failing_since is not None and now - failing_since >= DISABLED_AFTER
