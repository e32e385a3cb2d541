"""The enums of states and kinds. Stored as text, so that a person can read the tables without a legend."""

from enum import StrEnum


class TaskStatus(StrEnum):
    """The state of a task. `queued` means that the provider has not accepted it yet.

    `receiver/README.md` draws the transitions ("Task states"); `receiver.domain.transitions` has the table.
    """

    QUEUED = "queued"
    STAGED = "staged"
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})


class Submission(StrEnum):
    """The state of the create call for a task's present attempt."""

    WAITING = "waiting"
    """Not sent, or sent and known to have created nothing: it may be sent (again)."""
    SENDING = "sending"
    """The intent to send is on disk, and a process holds the lease. When the lease has run out, it means `unknown`."""
    UNKNOWN = "unknown"
    """The call may or may not have created a task: it is never sent again, only searched for at the provider."""
    ACCEPTED = "accepted"
    """The provider has the task, and we know its id."""
    REFUSED = "refused"
    """The provider refused the call or it failed for good, or it was not made because the input references a task that
    has no id at the provider. The provider has no task."""


class EventType(StrEnum):
    """The types of events, as subscribers see them."""

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
    WEBHOOK_FAILING = "webhook.failing"
    DELIVERY_DEAD = "delivery.dead"
    PROVIDER_PAUSED = "provider.paused"
    PROVIDER_UNAUTHORIZED = "provider.unauthorized"
    STORAGE_UNAVAILABLE = "storage.unavailable"
    TASK_STUCK = "task.stuck"
    PING = "ping"
    """Sent only by `POST /api/v1/webhooks/{id}/test`; it cannot be subscribed to, and is not stored."""


SYSTEM_EVENTS = (
    EventType.WEBHOOK_FAILING,
    EventType.WEBHOOK_DISABLED,
    EventType.DELIVERY_DEAD,
    EventType.PROVIDER_PAUSED,
    EventType.PROVIDER_UNAUTHORIZED,
    EventType.STORAGE_UNAVAILABLE,
    EventType.TASK_STUCK,
)
"""What an operator should know, rather than what became of a task or run (`receiver/api/CONTRACTS.md`, "Events")."""
TASK_EVENTS = tuple(event for event in EventType if event.startswith("task.") and event not in SYSTEM_EVENTS)
RUN_EVENTS = tuple(event for event in EventType if event.startswith("run."))
FREQUENT_TYPES = (EventType.TASK_CREATED, EventType.TASK_SUBMITTED, EventType.TASK_UPDATED, EventType.TASK_COMPLETED)
"""Types that are not in the index of rare ones, so that what a webhook writes is in no further index."""


class RunStatus(StrEnum):
    """The state of a run (`receiver/api/CONTRACTS.md`, "Pi")."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


RUN_TERMINAL = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED})


class StepStatus(StrEnum):
    """The state of a step of a run (`receiver/api/CONTRACTS.md`, "Pi").

    `cancelled` is Ringback's own: Pi cannot cancel a run.
    """

    PENDING = "pending"
    """Not begun: the steps that it depends on have not all completed."""
    QUEUED = "queued"
    """Begun: it has a task, which the provider is not processing yet."""
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not begun, and not to be: another step failed. Only a retry of the run can begin it."""
    CANCELLED = "cancelled"


STEP_TERMINAL = frozenset({StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED})


class SubscriptionKind(StrEnum):
    """How a subscription was created."""

    REGISTERED = "registered"
    """Registered with `POST /api/v1/webhooks`."""
    CALLBACK = "callback"
    """A client's own `config.webhook_config`: it receives events of the tasks that name it, and of no other."""


class DeliveryFormat(StrEnum):
    """The format of a delivery's body and headers."""

    STANDARD = "standard"
    PI = "pi"
    PIAPI = "piapi"
    CLOUDEVENTS = "cloudevents"
    REPLICATE = "replicate"


class SignatureScheme(StrEnum):
    """How deliveries are signed (`receiver/api/CONTRACTS.md`, "Standard Webhooks")."""

    SYMMETRIC = "v1"
    """HMAC-SHA256 with a shared secret (`whsec_`)."""
    ASYMMETRIC = "v1a"
    """ed25519: Ringback keeps the private key (`whsk_`), the subscriber has the public key (`whpk_`)."""


class DisabledReason(StrEnum):
    """Why Ringback switched a subscription off."""

    GONE = "gone"
    """Its endpoint responded with 410."""
    FAILING = "failing"
    """Every attempt failed for five days."""


class ReplayKind(StrEnum):
    """What a replay sends again."""

    RECOVER = "recover"
    """The deliveries that were given up (`dead`)."""
    REPLAY = "replay"
    """Every event that matches, whether it was delivered or not."""


class ReplayStatus(StrEnum):
    """The state of a replay."""

    RUNNING = "running"
    """It has batches left to insert. Not while its subscription is switched off, but still `running` then."""
    DONE = "done"
    """Its last batch is inserted; deliveries of it may still be pending."""
    CANCELLED = "cancelled"


class BulkActionKind(StrEnum):
    """What a bulk action does with each task."""

    CANCEL = "cancel"
    RETRY = "retry"
    REFRESH = "refresh"
    """Ask the provider, as soon as its limit allows."""


class BulkActionStatus(StrEnum):
    """The state of a bulk action."""

    RUNNING = "running"
    DONE = "done"
    """Every task that matched was acted on, or refused."""
    CANCELLED = "cancelled"
    """By a request: no further batch begins."""


class DeliveryStatus(StrEnum):
    """The state of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up: every attempt failed."""
    CANCELLED = "cancelled"
    """Its subscription was removed, or its replay was cancelled."""


class ReceiptReason(StrEnum):
    """Why an authentic inbound webhook was not applied."""

    MALFORMED = "malformed"
    """Its body could not be read as an update."""
    CONFLICTING = "conflicting"
    """It contradicts the state in which the task ended, or names a provider's task that another task has."""
    SUPERSEDED = "superseded"
    """It speaks of an earlier attempt, which another one followed."""


class StatisticStep(StrEnum):
    """How long a time the sums of one row of statistics are of."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


class Scope(StrEnum):
    """What an API key may do. Each scope includes the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
