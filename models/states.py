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
    RUN_CREATED = "run.created"
    RUN_COMPLETED = "run.completed"
    RUN_FAILED = "run.failed"
    RUN_CANCELLED = "run.cancelled"
    WEBHOOK_DISABLED = "webhook.disabled"
    PING = "ping"
    """Sent by `POST /api/v1/webhooks/{id}/test` alone; nobody subscribes to it, and it is not kept."""


TASK_EVENTS = tuple(event for event in EventType if event.startswith("task."))
RUN_EVENTS = tuple(event for event in EventType if event.startswith("run."))


class RunStatus(StrEnum):
    """Where a run is (contracts/pi.md)."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


RUN_TERMINAL = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED})


class StepStatus(StrEnum):
    """Where a step of a run is (contracts/pi.md); `cancelled` is Ringback's own, for Pi cannot cancel a run."""

    PENDING = "pending"
    """Not begun: it waits for the steps that it depends on."""
    QUEUED = "queued"
    """Begun: it has a task, which does not run yet."""
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not begun, and it never will be: another step failed."""
    CANCELLED = "cancelled"


STEP_TERMINAL = frozenset({StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED})


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
    CLOUDEVENTS = "cloudevents"


class SignatureScheme(StrEnum):
    """How deliveries are signed (contracts/standard-webhooks.md)."""

    SYMMETRIC = "v1"
    """HMAC-SHA256 with a shared secret, `whsec_`."""
    ASYMMETRIC = "v1a"
    """ed25519: Ringback keeps `whsk_`, the subscriber knows `whpk_`."""


class DisabledReason(StrEnum):
    """Why Ringback switched a subscription off."""

    GONE = "gone"
    """It answered 410."""
    FAILING = "failing"
    """It failed every time for five days."""


class ReplayKind(StrEnum):
    """What is sent again."""

    RECOVER = "recover"
    """What was given up."""
    REPLAY = "replay"
    """What matches, delivered or not."""


class ReplayStatus(StrEnum):
    """Where a replay is."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


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
