"""The part that a process takes of a webhook's own limits."""

import pytest

from receiver.domain.endpoint_queue import DEFAULT_IN_FLIGHT, Limits
from receiver.domain.limit_parts import whole
from receiver.domain.webhook_parts import WebhookLimits

ASKED: list[tuple[str, float]] = []


def quarter(name: str, wanted: float, hold: float = 0.0) -> float:
    ASKED.append((name, wanted))
    return 0.25


@pytest.mark.parametrize(
    ("limits", "alone", "part", "names"),
    [
        (WebhookLimits(8, 10.0), Limits(8, 10.0), Limits(2, 2.5), ["webhook-in-flight:7", "webhook-rate:7"]),
        (WebhookLimits(2, None), Limits(2, None), Limits(1, None), ["webhook-in-flight:7"]),
        (WebhookLimits(None, 10.0), Limits(rate=10.0), Limits(DEFAULT_IN_FLIGHT, 2.5), ["webhook-rate:7"]),
        (WebhookLimits(None, None), Limits(), Limits(), []),
    ],
)
def test_only_the_limits_that_a_client_has_set_are_shared(
    limits: WebhookLimits, alone: Limits, part: Limits, names: list[str]
) -> None:
    ASKED.clear()
    assert limits.part(7, 3, whole) == alone
    assert limits.part(7, 3, quarter) == part
    assert [(name, 3) for name in names] == ASKED
    assert limits.is_limited == bool(names)
