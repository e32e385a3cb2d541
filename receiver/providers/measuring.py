"""Counts the calls to providers, by what they ended with, and how long they took."""

from collections.abc import Awaitable
from time import monotonic
from typing import TypeVar

from receiver.providers.base import PROVIDER_UNAUTHORIZED, NoAnswer, Refused
from receiver.providers.forwarded import NotForwarded
from receiver.telemetry.metrics import counted, provider_calls, provider_seconds, timed

_Outcome = TypeVar("_Outcome")
_OUTCOMES = {
    "Accepted": "accepted",
    "Refused": "refused",
    "NotMade": "not_made",
    "FailedAttempt": "failed_attempt",
    "UnknownOutcome": "unknown",
    "Found": "found",
    "Missing": "missing",
    "NoAnswer": "no_answer",
    "Cancelled": "cancelled",
    "CancelRequested": "cancel_requested",
    "ForwardedAnswer": "forwarded",
    "NotForwarded": "not_forwarded",
}
"""The outcomes as the metric names them."""


async def measured(provider: str, call: str, made: Awaitable[_Outcome]) -> _Outcome:
    """Wait for a call to a provider, count it, and return its outcome."""
    began = monotonic()
    outcome = await made
    count_call(provider, call, outcome, began)
    return outcome


def count_call(provider: str, call: str, outcome: object, began: float) -> None:
    """Count a call, and observe how long it took since `began` on the monotonic clock."""
    word = outcome if isinstance(outcome, str) else _word(outcome)
    counted(provider_calls, provider, call, word).inc()
    timed(provider_seconds, provider, call, word).observe(monotonic() - began)


def _word(outcome: object) -> str:
    is_refused = isinstance(outcome, Refused | NotForwarded) and outcome.code == PROVIDER_UNAUTHORIZED
    if is_refused or (isinstance(outcome, NoAnswer) and outcome.unauthorized):
        return "unauthorized"
    return _OUTCOMES[type(outcome).__name__]
