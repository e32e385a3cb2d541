"""Statistics, as they are answered. They are made in `receiver.reporting.statistics`."""

from typing import Literal

from models import DisabledReason, StatisticStep
from receiver.api.description.forms import Answered, Id, Time, absent


class OpenTasksAnswer(Answered):
    """How many tasks are in each state now; one that is `counted_up_to` means that many or more."""

    queued: int
    staged: int
    pending: int
    processing: int


class TaskStepAnswer(Answered):
    """The tasks of one step of the range."""

    at: Time
    created: int
    completed: int
    failed: int
    cancelled: int


class ModelSumsAnswer(Answered):
    """The tasks of one model, and how long those that were completed took since they were created."""

    provider: str
    model: str
    created: int
    completed: int
    failed: int
    cancelled: int
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None


class TaskSumsAnswer(Answered):
    """The tasks, now and in the range."""

    now: OpenTasksAnswer
    counted_up_to: int
    oldest_due_at: Time | None
    created: int
    completed: int
    failed: int
    cancelled: int
    by_webhook: int
    """Ends that a webhook of the provider's brought."""
    by_poll: int
    by_other: int
    models: list[ModelSumsAnswer]
    """Those with the most tasks, 50 at most."""
    percentile_error: float
    """How far, as a share of itself, a percentile may be from the true one."""
    series: list[TaskStepAnswer]


class AttemptStepAnswer(Answered):
    """The attempts of one step of the range."""

    at: Time
    attempts: int
    delivered: int
    failed: int
    dead: int


class AttemptSumsAnswer(Answered):
    """Attempts at deliveries in the range; latencies are of those that were answered."""

    attempts: int
    delivered: int
    failed: int
    dead: int
    """Deliveries that were given up."""
    success_rate: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    percentile_error: float
    series: list[AttemptStepAnswer]


class AllAttemptSumsAnswer(AttemptSumsAnswer):
    """Attempts at all deliveries."""

    oldest_due_at: Time | None
    """Of deliveries to registered webhooks."""


class WebhookStandingAnswer(Answered):
    """How a webhook stands now."""

    webhook_id: Id
    endpoint_url: str
    is_active: bool
    disabled_reason: DisabledReason | None
    failing_since: Time | None
    pending: int
    next_due_at: Time | None


class WebhookStandingsAnswer(Answered):
    """The webhooks that fail, are off or have deliveries pending."""

    failing: int
    disabled: int
    counted_up_to: int
    """Up to how many pending deliveries are counted."""
    shown: list[WebhookStandingAnswer]
    """50 at most."""


class ProviderStandingAnswer(Answered):
    """How a provider stands now."""

    name: str
    calls_per_second: float
    """The limit of calls to it."""
    paused_seconds: float
    reserved_seconds: float
    """How far calls are planned ahead by all processes."""
    key_is_refused: bool


class ServiceAnswer(Answered):
    """The service itself."""

    version: str
    replicas: int


class RangeAnswer(Answered):
    """A range of time in whole steps."""

    object: Literal["stats"]
    since: Time
    until: Time
    step: StatisticStep
    counted_until: Time
    """Up to when what happened is in the sums."""


class StatsAnswer(RangeAnswer):
    """Tasks, deliveries, webhooks and providers in numbers."""

    model: str | None
    tasks: TaskSumsAnswer
    deliveries: AllAttemptSumsAnswer
    webhooks: WebhookStandingsAnswer
    providers: list[ProviderStandingAnswer]
    """Empty for an organization without the provider account."""
    service: ServiceAnswer


class WebhookStatsAnswer(RangeAnswer):
    """The deliveries of one webhook in numbers."""

    webhook_id: Id = absent()
    endpoint_url: str = absent()
    is_active: bool = absent()
    disabled_reason: DisabledReason | None = absent()
    failing_since: Time | None = absent()
    pending: int = absent()
    next_due_at: Time | None = absent()
    deliveries: AttemptSumsAnswer
