"""The tables of the database, and the enums of their states.

The classes are imported when one of them is first asked for: to build them was a sixth of a start, and who only reads
and writes rows needs no more than the tables of `models.core`.
"""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from models.classes import (
        Alert,
        ApiKey,
        AuditEntry,
        BulkAction,
        Delivery,
        DeliveryAttempt,
        DeliveryStatistic,
        Event,
        FanOut,
        IdempotencyKey,
        InstallationFact,
        LimitUse,
        MasterKey,
        Organization,
        ProviderBudget,
        Receipt,
        Replay,
        Run,
        RunStep,
        SignInLink,
        StatisticPosition,
        StoredAccount,
        Subscription,
        SystemCondition,
        Task,
        TaskAttempt,
        TaskMetadataValue,
        TaskStatistic,
        metadata,
    )

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

if not TYPE_CHECKING:  # else any name would be one of this module

    def __getattr__(name: str) -> Any:
        """Return a class, or `metadata`: what is in `__all__` and not in this module yet."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from models import classes

        return getattr(classes, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
