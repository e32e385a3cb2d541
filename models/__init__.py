"""Ringback's nouns: the tables and the words for their states."""

from sqlmodel import SQLModel

from models.deliveries import Delivery, DeliveryAttempt
from models.events import Event
from models.keys import ApiKey, Organization
from models.receipts import Receipt
from models.states import (
    TERMINAL,
    DeliveryFormat,
    DeliveryStatus,
    EventType,
    ReceiptReason,
    Scope,
    Submission,
    SubscriptionKind,
    TaskStatus,
)
from models.subscriptions import Subscription
from models.tasks import Task

metadata = SQLModel.metadata

__all__ = [
    "TERMINAL",
    "ApiKey",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryFormat",
    "DeliveryStatus",
    "Event",
    "EventType",
    "Organization",
    "Receipt",
    "ReceiptReason",
    "Scope",
    "Submission",
    "Subscription",
    "SubscriptionKind",
    "Task",
    "TaskStatus",
    "metadata",
]
