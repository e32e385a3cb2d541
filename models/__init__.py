"""The tables of the database, and the enums of their states."""

from sqlmodel import SQLModel

from models.attempts import TaskAttempt
from models.audit import AuditEntry
from models.budgets import ProviderBudget
from models.bulk_actions import BulkAction
from models.deliveries import Delivery, DeliveryAttempt
from models.events import Event
from models.fan_outs import FanOut
from models.idempotency import IdempotencyKey
from models.installation import InstallationFact
from models.keys import ApiKey, Organization
from models.limits import LimitUse
from models.master_keys import MasterKey
from models.provider_accounts import StoredAccount
from models.receipts import Receipt
from models.replays import Replay
from models.runs import Run, RunStep
from models.sign_in_links import SignInLink
from models.states import (
    RUN_EVENTS,
    RUN_TERMINAL,
    STEP_TERMINAL,
    SYSTEM_EVENTS,
    TASK_EVENTS,
    TERMINAL,
    BulkActionKind,
    BulkActionStatus,
    DeliveryFormat,
    DeliveryStatus,
    DisabledReason,
    EventType,
    ReceiptReason,
    ReplayKind,
    ReplayStatus,
    RunStatus,
    Scope,
    SignatureScheme,
    StatisticStep,
    StepStatus,
    Submission,
    SubscriptionKind,
    TaskStatus,
)
from models.statistics import DeliveryStatistic, StatisticPosition, TaskMetadataValue, TaskStatistic
from models.subscriptions import Subscription
from models.system import Alert, SystemCondition
from models.tasks import Task

metadata = SQLModel.metadata

__all__ = [
    "RUN_EVENTS",
    "RUN_TERMINAL",
    "STEP_TERMINAL",
    "SYSTEM_EVENTS",
    "TASK_EVENTS",
    "TERMINAL",
    "Alert",
    "ApiKey",
    "AuditEntry",
    "BulkAction",
    "BulkActionKind",
    "BulkActionStatus",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryFormat",
    "DeliveryStatistic",
    "DeliveryStatus",
    "DisabledReason",
    "Event",
    "EventType",
    "FanOut",
    "IdempotencyKey",
    "InstallationFact",
    "LimitUse",
    "MasterKey",
    "Organization",
    "ProviderBudget",
    "Receipt",
    "ReceiptReason",
    "Replay",
    "ReplayKind",
    "ReplayStatus",
    "Run",
    "RunStatus",
    "RunStep",
    "Scope",
    "SignInLink",
    "SignatureScheme",
    "StatisticPosition",
    "StatisticStep",
    "StepStatus",
    "StoredAccount",
    "Submission",
    "Subscription",
    "SubscriptionKind",
    "SystemCondition",
    "Task",
    "TaskAttempt",
    "TaskMetadataValue",
    "TaskStatistic",
    "TaskStatus",
    "metadata",
]
