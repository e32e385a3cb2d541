"""Ringback's nouns: the tables and the words for their states."""

from sqlmodel import SQLModel

from models.deliveries import Delivery, DeliveryAttempt
from models.events import Event
from models.keys import ApiKey, Organization
from models.receipts import Receipt
from models.replays import Replay
from models.states import (
    TASK_EVENTS,
    TERMINAL,
    DeliveryFormat,
    DeliveryStatus,
    DisabledReason,
    EventType,
    ReceiptReason,
    ReplayKind,
    ReplayStatus,
    Scope,
    SignatureScheme,
    Submission,
    SubscriptionKind,
    TaskStatus,
)
from models.subscriptions import Subscription
from models.tasks import Task

metadata = SQLModel.metadata

__all__ = [
    "TASK_EVENTS",
    "TERMINAL",
    "ApiKey",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryFormat",
    "DeliveryStatus",
    "DisabledReason",
    "Event",
    "EventType",
    "Organization",
    "Receipt",
    "ReceiptReason",
    "Replay",
    "ReplayKind",
    "ReplayStatus",
    "Scope",
    "SignatureScheme",
    "Submission",
    "Subscription",
    "SubscriptionKind",
    "Task",
    "TaskStatus",
    "metadata",
]
