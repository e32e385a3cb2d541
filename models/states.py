"""The words for states. Stored as text, so that a person who reads the tables needs no legend."""

from enum import StrEnum


class TaskStatus(StrEnum):
    """Where a task is. `queued` means that the provider has not accepted it yet."""

    QUEUED = "queued"
    STAGED = "staged"
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})


class Submission(StrEnum):
    """What became of the create call for a task's present attempt."""

    WAITING = "waiting"
    """Not sent, or sent and known to have made nothing: it may be sent (again)."""
    SENDING = "sending"
    """The intent is on disk and somebody holds the lease. Found after the lease ran out, it means unknown."""
    UNKNOWN = "unknown"
    """It may or may not have made a task: never sent again, only looked for."""
    ACCEPTED = "accepted"
    """The provider has it, and we know its id."""
    REFUSED = "refused"
    """The provider said no."""


class EventType(StrEnum):
    """What can happen, as subscribers see it."""

    TASK_CREATED = "task.created"
    TASK_SUBMITTED = "task.submitted"
    TASK_UPDATED = "task.updated"
    TASK_COMPLETED = "task.completed"
    TASK_FAILED = "task.failed"
    TASK_CANCELLED = "task.cancelled"


class SubscriptionKind(StrEnum):
    """How a subscription came to be."""

    REGISTERED = "registered"
    """Somebody registered it with `POST /api/v1/webhooks`."""
    CALLBACK = "callback"
    """A client's own `config.webhook_config`: told of the tasks that name it, and of no other."""


class DeliveryFormat(StrEnum):
    """The form in which a subscriber is told."""

    STANDARD = "standard"
    PI = "pi"
    PIAPI = "piapi"


class DeliveryStatus(StrEnum):
    """Where a delivery is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up: every attempt failed."""
    CANCELLED = "cancelled"
    """Its subscription went away or was switched off."""


class ReceiptReason(StrEnum):
    """Why an authentic inbound webhook was not applied."""

    MALFORMED = "malformed"
    CONFLICTING = "conflicting"
    SUPERSEDED = "superseded"


class Scope(StrEnum):
    """What a key may do. Each holds the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
