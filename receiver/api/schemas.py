"""Schemas of what clients send: bodies and queries."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from models import DeliveryFormat, DeliveryStatus, ReceiptReason, Scope, SignatureScheme, TaskStatus
from receiver.providers.registry import DEFAULT_PROVIDER, provider_names, unknown_provider

ShortName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
MetadataName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
DEEPEST = 100
"""Levels of nesting. A deeper value cannot be written by every JSON library and database that it passes."""


def _check_depth(value: Any) -> Any:
    level = [value]
    for _ in range(DEEPEST):
        level = [child for each in level if isinstance(each, dict | list) for child in _children(each)]
        if not level:
            return value
    raise ValueError(f"may be nested at most {DEEPEST} levels deep")


def _children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


MOST_FIELDS = 100
"""Of an object whose fields are known, of headers, and of event types."""


def check_members(value: Any) -> Any:
    """Check the number of members before each is validated: a body may have a hundred thousand, each with a fault."""
    if isinstance(value, dict | list) and len(value) > MOST_FIELDS:
        raise ValueError(f"may have at most {MOST_FIELDS} members")
    return value


class RequestFields(BaseModel):
    """What all objects are that clients send. A schema is built at its first use: all of them would delay the start."""

    model_config = ConfigDict(defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _countable(cls, value: Any) -> Any:
        return check_members(value)


Few = BeforeValidator(check_members)
"""For a list or an object whose members are validated one by one."""
Object = Annotated[dict[str, Any], BeforeValidator(_check_depth)]
MOST_METADATA_BYTES = 16 * 1024


def _check_bytes(value: dict[str, Any]) -> dict[str, Any]:
    if len(orjson.dumps(value)) > MOST_METADATA_BYTES:
        raise ValueError(f"may have at most {MOST_METADATA_BYTES} bytes")
    return value


Metadata = Annotated[Object, AfterValidator(_check_bytes)]
_UNENCODED_OFFSET = re.compile(r"(:[0-9]{2}(?:[.,][0-9]+)?) ([0-9]{2}:?[0-9]{2})$")
"""The end of an ISO time whose `+` was not encoded in a query, where it means a blank."""
_LATEST = 253_402_300_799
"""The last second of the year 9999."""
_OUT_OF_RANGE = "is out of range: years 1 to 9999 are supported"


def _read_time(value: Any) -> Any:
    """Return the time given as unix seconds (a number or a text) or as ISO 8601; without a time zone it is UTC."""
    if isinstance(value, str):
        value = _UNENCODED_OFFSET.sub(r"\1+\2", value)
        value = float(value) if value.replace(".", "", 1).isdecimal() else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value, UTC)
        except (OverflowError, OSError, ValueError):
            raise ValueError(_OUT_OF_RANGE) from None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("must be ISO 8601 or unix seconds") from None
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError(_OUT_OF_RANGE) from None


SecretText = Annotated[str, WithJsonSchema({"type": "string", "minLength": 8, "maxLength": 500})]
"""A secret of a webhook, whose form depends on the format (`receiver.domain.signatures`)."""
UuidText = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]
"""An id that is looked up, and checked where that is done."""
Timestamp = Annotated[
    datetime,
    BeforeValidator(_read_time),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "string", "format": "date"},
                {"type": "number", "minimum": 0, "maximum": _LATEST},
            ],
            "description": "ISO 8601 (UTC without a time zone), or unix seconds.",
            "examples": ["2026-01-31T09:30:00Z", 1769851800],
        }
    ),
]


def _check_provider(value: str) -> str:
    if value not in provider_names():
        raise ValueError(unknown_provider(value))
    return value


class _KnownProvider:
    """Describes a provider's name: which there are is known when the service has read the operator's files."""

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        return {"enum": list(provider_names())}


ProviderName = Annotated[ShortName, AfterValidator(_check_provider), _KnownProvider()]


class WebhookConfig(RequestFields):
    """A client's own `config.webhook_config` that names an endpoint."""

    endpoint: str
    secret: Annotated[str, StringConstraints(max_length=500, pattern=r"^[\x20-\x7e]*$")] | None = None
    """Sent as a header's value, so printable ASCII only."""


class Retry(RequestFields):
    """How a task is retried when the provider fails it."""

    model_config = ConfigDict(extra="forbid")

    max_attempts: Annotated[int, Field(ge=1, le=5)] = 1
    backoff_seconds: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """Before the second attempt; it doubles with each."""


_ONCE = Retry()


class CreateTask(RequestFields):
    """`POST /api/v1/task`: PiAPI's create, extended by `metadata` and `retry`."""

    model: ShortName
    task_type: ShortName
    input: Object
    """What the model takes."""
    provider: ProviderName = DEFAULT_PROVIDER
    """Whose task API makes it; `input` has that provider's own form."""
    account: ShortName | None = None
    """The account there, by name; by default your organization's default, else everyone's, else the environment's."""
    config: Object | None = None
    """Passed on. `webhook_config` has `endpoint` and `secret` of a callback of the client's own."""
    metadata: Metadata | None = None
    """The client's own, to find the task by; at most 16 KiB."""
    # The same for all, for a default itself would be copied for each request.
    retry: Retry = Field(default_factory=lambda: _ONCE, json_schema_extra={"default": _ONCE.model_dump()})


class AdoptTask(RequestFields):
    """`POST /api/v1/tasks/adopt`: which task to track."""

    model_config = ConfigDict(extra="forbid")

    provider_task_id: ShortName
    provider: ProviderName = DEFAULT_PROVIDER
    account: ShortName | None = None
    """The name of the account that has it, as for a create."""
    metadata: Metadata | None = None


class _WebhookFields(RequestFields):
    """The fields of a webhook that are optional and can be reset by null; `receiver.domain` has more rules for them."""

    model_config = ConfigDict(extra="forbid")

    event_types: Annotated[list[str], Few] | None = None
    """Types of events, or `task.*`, `run.*`, `system.*`; by default the ends of tasks."""
    filters: Object | None = None
    """Accepted values, or lists of them, by `model`, `task_type`, `run_id` and `metadata`."""
    headers: Annotated[dict[str, str], Few] | None = None
    """Sent with each delivery. Their values are never shown."""
    description: Annotated[str, Field(max_length=500)] | None = None
    rate_limit: Annotated[float, Field(gt=0, le=10_000, strict=True)] | None = None
    """Attempts a second at most."""
    max_in_flight: Annotated[int, Field(ge=1, le=1000, strict=True)] | None = None
    """Attempts at a time at most."""


def _without_defaults(schema: dict[str, Any]) -> None:
    """Leave the defaults out of a schema: what is not given stays as it is."""
    for field in schema["properties"].values():
        field.pop("default", None)


class CreateWebhook(_WebhookFields):
    """`POST /api/v1/webhooks`: a callback URL, and what it is to get."""

    endpoint_url: str
    """Called byte for byte as it is given."""
    secret: SecretText | None = None
    """8 to 500 characters; by default Ringback makes one. With Standard Webhooks `whsec_` and base64."""
    format: DeliveryFormat | None = None
    ordered: StrictBool | None = None
    """One delivery at a time, in the order of the events."""
    signature: SignatureScheme | None = None


class ChangeWebhook(_WebhookFields):
    """`PATCH /api/v1/webhooks/{id}`: only given fields are changed; null resets a field."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    endpoint_url: str = ""
    secret: SecretText = ""
    format: DeliveryFormat = DeliveryFormat.STANDARD
    ordered: StrictBool = False
    signature: SignatureScheme = SignatureScheme.SYMMETRIC
    is_active: StrictBool = True


class RotateSecret(RequestFields):
    """`POST /api/v1/webhooks/{id}/rotate-secret`: at most 7 days of overlap."""

    model_config = ConfigDict(extra="forbid")

    overlap_seconds: Annotated[float, Field(ge=0, le=604_800, strict=True)] = 86_400
    """How long the old secret signs too."""
    secret: SecretText | None = None
    """By default Ringback makes one."""


class RecoverRequest(RequestFields):
    """`POST /api/v1/webhooks/{id}/recover`: since when."""

    model_config = ConfigDict(extra="forbid")

    since: Timestamp


class ReplayRequest(RequestFields):
    """`POST /api/v1/webhooks/{id}/replay`: which events. `until` is now by default."""

    model_config = ConfigDict(extra="forbid")

    since: Timestamp
    until: Timestamp | None = None
    event_types: Annotated[list[str], Few] | None = None


class RotateMasterKey(RequestFields):
    """`POST /api/v1/master-keys/rotate`: `cursor` is the `next_cursor` of the page before."""

    model_config = ConfigDict(extra="forbid")

    cursor: Annotated[str, StringConstraints(pattern=r"^[0-3]\.[0-9]{1,18}$")] | None = None
    dry_run: StrictBool = False
    """Count only."""


class CreateKey(RequestFields):
    """`POST /api/v1/keys`: what the key may do."""

    model_config = ConfigDict(extra="forbid")

    name: ShortName
    scope: Scope = Scope.WRITE
    rate_limit: Annotated[float, Field(ge=0.001, le=100_000, strict=True)] | None = None
    """Requests per second, to all processes together; null means the default, `RINGBACK_KEY_RATE`."""
    expires_at: Timestamp | None = None
    """From when on it is refused; null means never."""


class Page(RequestFields):
    """The query parameters that all lists have."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: str | None = None
    """The `next_cursor` of the page before."""


class WebhookQuery(Page):
    """The query of `GET /api/v1/webhooks`."""

    include: Literal["stats"] | None = None
    """`stats`: the numbers of each webhook in the last day, and what waits now."""


class TaskQuery(Page):
    """The query of `GET /api/v1/tasks`."""

    status: TaskStatus | None = None
    model: str | None = None
    task_type: str | None = None
    provider: ProviderName | None = None
    run_id: UuidText | None = None
    created_after: Timestamp | None = None
    created_before: Timestamp | None = None
    metadata: dict[str, str] = {}
    """Values of the tasks' own metadata: `metadata[order]=4711`."""
    brief: bool = False
    """Whether to leave out `input`, `output`, `logs`, `config` and `usage`, which may be large."""
    q: Annotated[str, StringConstraints(max_length=200)] | None = None
    """Free text: an id or its beginning, a part of a model's name, or a value of the tasks' own metadata."""


class TasksToChange(RequestFields):
    """`POST /api/v1/tasks/cancel|retry|refresh`: which tasks, by the filters of the list; at least one, or `all`."""

    model_config = ConfigDict(extra="forbid")

    status: TaskStatus | None = None
    model: ShortName | None = None
    task_type: ShortName | None = None
    provider: ProviderName | None = None
    run_id: str | None = None
    created_after: Timestamp | None = None
    created_before: Timestamp | None = None
    metadata: Annotated[dict[MetadataName, str], Field(max_length=10)] = {}
    all: StrictBool = False
    dry_run: StrictBool = False

    @property
    def filters(self) -> dict[str, Any]:
        """What the request filters by, by its names."""
        given = self.model_dump(exclude={"dry_run"}, exclude_none=True, exclude_defaults=True)
        return {name: value for name, value in given.items() if value != {}}

    @model_validator(mode="after")
    def _is_narrowed(self) -> Self:
        if not self.filters:
            raise ValueError('give at least one filter, or "all": true')
        if self.all and len(self.filters) > 1:
            raise ValueError('"all" leaves no room for a filter: give one of them')
        return self


class TaskEventQuery(Page):
    """The query of `GET /api/v1/tasks/{id}/events`, and of the same for a run."""

    brief: bool = False
    """Whether `data` is without what may be large."""


class EventQuery(Page):
    """The query of `GET /api/v1/events`; `after` is the alternative to the `Last-Event-ID` header."""

    event_types: Annotated[list[str], Few] | None = None
    model: Annotated[list[str], Few] | None = None
    task_type: Annotated[list[str], Few] | None = None
    task_id: str | None = None
    run_id: Annotated[list[UuidText], Few] | None = None
    after: str | None = None
    """What `Last-Event-ID` is, for readers that can send no header."""
    brief: bool = False
    """Whether `data` is without what may be large; of pages alone."""
    scan_limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """How many events are looked at for a page that is newest first; by default as many as it takes."""


class WebhookDeliveryQuery(Page):
    """The query of `GET /api/v1/webhooks/{id}/deliveries`."""

    status: DeliveryStatus | None = None
    event_id: UuidText | None = None
    task_id: str | None = None
    """Ringback's id of the task, or the provider's."""
    created_after: Timestamp | None = None
    created_before: Timestamp | None = None


class DeliveryQuery(WebhookDeliveryQuery):
    """The query of `GET /api/v1/deliveries`."""

    webhook_id: UuidText | None = None


class ReceiptQuery(Page):
    """The query of `GET /api/v1/receipts`."""

    reason: ReceiptReason | None = None
    provider: str | None = None
    task_id: str | None = None
    received_after: Timestamp | None = None
    received_before: Timestamp | None = None


class AuditQuery(Page):
    """The query of `GET /api/v1/audit`."""

    action: str | None = None
    target: str | None = None
    """The id of what was changed."""
    key_id: UuidText | None = None
    """The key that it was changed with."""
    since: Timestamp | None = None
    until: Timestamp | None = None


class ReportQuery(RequestFields):
    """The query of `GET /api/v1/report`; by default of the last 24 hours."""

    since: Timestamp | None = None


class WebhookStatsQuery(RequestFields):
    """The query of `GET /api/v1/webhooks/{id}/stats`; by default of the last hour, in minutes."""

    since: Timestamp | None = None
    until: Timestamp | None = None
    step: Literal["minute", "hour"] | None = None


class StatsQuery(WebhookStatsQuery):
    """The query of `GET /api/v1/stats`."""

    model: str | None = None


class WaitQuery(RequestFields):
    """The query of a long poll, as Pi has it: `timeout_seconds` is 1 to 30, by default 20."""

    wait_for_completion: bool = False
    """Answer when it has ended, or when the time is up."""
    timeout_seconds: Annotated[float, Field(ge=1, le=30)] = 20


class WaitForTasks(RequestFields):
    """`POST /api/v1/tasks/wait`: one long poll for several tasks, until any or all of them have ended."""

    model_config = ConfigDict(extra="forbid")

    task_ids: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=200)]], Field(min_length=1, max_length=1000)
    ]
    mode: Literal["any", "all"] = "all"
    timeout_seconds: Annotated[float, Field(ge=1, le=30)] = 20


class GetTask(WaitQuery):
    """The query of `GET /api/v1/tasks/{id}`."""

    include: Literal["attempts"] | None = None
    """Its attempts too, also if it had only one."""
