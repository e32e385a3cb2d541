"""Webhooks, deliveries and replays, as they are answered (`receiver.domain.delivery_views`)."""

from typing import Any, Literal

from models import (
    DeliveryFormat,
    DeliveryStatus,
    DisabledReason,
    EventType,
    ReplayKind,
    ReplayStatus,
    SignatureScheme,
)
from receiver.api.description.forms import Answered, Free, Id, Time, absent


class WebhookStateAnswer(Answered):
    """A webhook as events tell it."""

    object: Literal["webhook"]
    id: Id
    endpoint_url: str
    is_active: bool
    format: DeliveryFormat
    event_types: list[str]
    filters: Free | None
    description: str | None
    rate_limit: float | None
    """Attempts a second; null is no limit."""
    max_in_flight: int | None
    """Attempts at a time; null is no limit of the webhook's own."""
    ordered: bool
    signature: SignatureScheme
    failing_since: Time | None
    """Since when every attempt has failed."""
    disabled_reason: DisabledReason | None
    """Why Ringback switched it off."""
    created_at: Time
    updated_at: Time


class WebhookAnswer(WebhookStateAnswer):
    """A registered callback URL."""

    headers: dict[str, str] | None
    """The headers that were added; their values are not shown."""
    public_key: str | None = absent()
    """What verifies its signatures, where they are asymmetric (`v1a`)."""


class WebhookNumbersAnswer(Answered):
    """The deliveries of a webhook in the last day, and what waits now."""

    since: Time
    until: Time
    attempts: int
    delivered: int
    success_rate: float | None
    """Null if there was no attempt."""
    pending: int
    next_due_at: Time | None


class ListedWebhookAnswer(WebhookAnswer):
    """A registered callback URL in a list."""

    stats: WebhookNumbersAnswer = absent()
    """With `include=stats`."""


class SavedWebhookAnswer(WebhookAnswer):
    """A webhook after a change."""

    secret: str = absent()
    """The secret, if Ringback made it: only this answer has it."""


class DeletedWebhookAnswer(Answered):
    """A webhook that was removed."""

    object: Literal["webhook"]
    id: Id
    deleted: Literal[True]


class PingRequestAnswer(Answered):
    """What was sent. Values that may be secret are hidden."""

    headers: dict[str, str]
    body: Free


class TestAnswer(Answered):
    """The result of a ping."""

    object: Literal["test"]
    event_id: Id
    delivered: bool
    status_code: int | None
    error: str | None
    duration_ms: int | float
    response: str
    """The beginning of the answer's body."""
    request: PingRequestAnswer


class DeliveryAnswer(Answered):
    """One event for one webhook, or for a client's own callback."""

    object: Literal["delivery"]
    id: Id
    event_id: Id
    event_type: EventType
    webhook_id: Id | None
    """Null for a client's own `config.webhook_config`."""
    endpoint_url: str
    task_id: Id | None
    run_id: Id | None
    replay_id: Id | None
    status: DeliveryStatus
    attempt_count: int
    """How many attempts were begun."""
    next_attempt_at: Time | None
    """Null when it is settled or in flight, or waits for its webhook to be enabled."""
    last_status_code: int | None
    last_error: str | None
    created_at: Time
    settled_at: Time | None


class DeliveryAttemptAnswer(Answered):
    """One attempt at a delivery."""

    attempt: int
    started_at: Time
    duration_ms: int | float | None
    status_code: int | None
    error: str | None
    response: str | None
    """The beginning of the answer's body."""


class DeliveryRequestAnswer(Answered):
    """The request of a delivery. Values that may be secret are hidden."""

    method: Literal["POST"]
    url: str
    headers: dict[str, str] = absent()
    body: Any = absent()
    error: str = absent()
    """Why it cannot be shown."""


class DeliveryWithAttemptsAnswer(DeliveryAnswer):
    """A delivery with its request, as it is sent, and all attempts."""

    request: DeliveryRequestAnswer | None
    attempts: list[DeliveryAttemptAnswer]


class ReplayAnswer(Answered):
    """A request to send to a webhook again, and its progress."""

    object: Literal["replay"]
    id: Id
    kind: ReplayKind
    webhook_id: Id
    status: ReplayStatus
    deliveries: int
    """How many are to be sent, counted when it was requested."""
    sent: int
    """How many of them were queued."""
    pending: int
    delivered: int
    dead: int
    cancelled: int
    since: Time
    until: Time
    event_types: list[str] | None
    created_at: Time
    ended_at: Time | None
