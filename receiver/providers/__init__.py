"""Task APIs that we call and that call us back: one adapter a provider, behind one protocol."""

from receiver.providers.base import (
    Accepted,
    CallerKey,
    CallPurpose,
    Cancelled,
    CancelOutcome,
    FailedAttempt,
    FetchOutcome,
    Found,
    MalformedUpdate,
    Missing,
    NewTask,
    NoAnswer,
    NotMade,
    Provider,
    Refused,
    SubmitOutcome,
    UnknownOutcome,
)
from receiver.providers.piapi import PiAPI
from receiver.providers.rate_limiter import RateLimiter

__all__ = [
    "Accepted",
    "CallPurpose",
    "CallerKey",
    "CancelOutcome",
    "Cancelled",
    "FailedAttempt",
    "FetchOutcome",
    "Found",
    "MalformedUpdate",
    "Missing",
    "NewTask",
    "NoAnswer",
    "NotMade",
    "PiAPI",
    "Provider",
    "RateLimiter",
    "Refused",
    "SubmitOutcome",
    "UnknownOutcome",
]
