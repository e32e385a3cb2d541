"""Task APIs that we call and that call us back: one adapter a provider, behind one protocol."""

from receiver.providers.base import (
    Accepted,
    Cancelled,
    CancelOutcome,
    Errand,
    FailedAttempt,
    FetchOutcome,
    Found,
    Lane,
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
from receiver.providers.rate_limiter import Budget

__all__ = [
    "Accepted",
    "Budget",
    "CancelOutcome",
    "Cancelled",
    "Errand",
    "FailedAttempt",
    "FetchOutcome",
    "Found",
    "Lane",
    "MalformedUpdate",
    "Missing",
    "NewTask",
    "NoAnswer",
    "NotMade",
    "PiAPI",
    "Provider",
    "Refused",
    "SubmitOutcome",
    "UnknownOutcome",
]
