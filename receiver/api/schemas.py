"""What clients may send, checked before it comes near a table."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
)

from models import DeliveryFormat, DeliveryStatus, Scope, SignatureScheme, TaskStatus
from receiver.providers.registry import DEFAULT_PROVIDER

ShortName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
DEEPEST = 100
"""Levels of nesting; what is deeper cannot be written everywhere where it must go."""


def _shallow(value: Any) -> Any:
    level = [value]
    for _ in range(DEEPEST):
        level = [child for each in level if isinstance(each, dict | list) for child in _children(each)]
        if not level:
            return value
    raise ValueError(f"is nested more than {DEEPEST} levels deep")


def _children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


Object = Annotated[dict[str, Any], BeforeValidator(_shallow)]
MOST_METADATA_BYTES = 16 * 1024


def _small(value: dict[str, Any]) -> dict[str, Any]:
    if len(orjson.dumps(value)) > MOST_METADATA_BYTES:
        raise ValueError(f"may have at most {MOST_METADATA_BYTES} bytes")
    return value


Metadata = Annotated[Object, AfterValidator(_small)]
_NO_MOMENT = "is not a moment that this calendar knows"


def _moment(value: Any) -> Any:
    """Read unix seconds, also as text, and ISO 8601; what names no time zone is UTC."""
    if isinstance(value, str) and value.replace(".", "", 1).isdigit():
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value, UTC)
        except (OverflowError, OSError, ValueError):
            raise ValueError(_NO_MOMENT) from None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("must be ISO 8601 or unix seconds") from None
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError(_NO_MOMENT) from None


Timestamp = Annotated[datetime, BeforeValidator(_moment)]


class WebhookConfig(BaseModel):
    """A client's own `config.webhook_config`; an empty endpoint means none."""

    endpoint: str = ""
    secret: Annotated[str, StringConstraints(max_length=500, pattern=r"^[\x20-\x7e]*$")] | None = None
    """It goes into a header as it is."""


class Retry(BaseModel):
    """How a provider's failure is tried again."""

    model_config = ConfigDict(extra="forbid")

    max_attempts: Annotated[int, Field(ge=1, le=5)] = 1
    backoff_seconds: Annotated[float, Field(ge=0, le=3600)] = 1.0


class CreateTask(BaseModel):
    """`POST /api/v1/task`: PiAPI's create, with `metadata` and `retry` besides."""

    model: ShortName
    task_type: ShortName
    input: Object
    config: Object | None = None
    metadata: Metadata | None = None
    retry: Retry = Retry()


class AdoptTask(BaseModel):
    """`POST /api/v1/tasks/adopt`."""

    model_config = ConfigDict(extra="forbid")

    provider_task_id: ShortName
    provider: ShortName = DEFAULT_PROVIDER
    metadata: Metadata | None = None


class _WebhookFields(BaseModel):
    """What a webhook may be given, and set back to nothing; more rules are in `receiver.domain`."""

    model_config = ConfigDict(extra="forbid")

    event_types: list[str] | None = None
    filters: Object | None = None
    headers: dict[str, str] | None = None
    description: Annotated[str, Field(max_length=500)] | None = None
    rate_limit: Annotated[float, Field(gt=0, le=10_000, strict=True)] | None = None
    max_in_flight: Annotated[int, Field(ge=1, le=1000, strict=True)] | None = None


class CreateWebhook(_WebhookFields):
    """`POST /api/v1/webhooks`."""

    endpoint_url: str
    secret: str | None = None
    format: DeliveryFormat | None = None
    ordered: StrictBool | None = None
    signature: SignatureScheme | None = None


class ChangeWebhook(_WebhookFields):
    """`PATCH /api/v1/webhooks/{id}`: only what is given is changed, and null sets back."""

    endpoint_url: str = ""
    secret: str = ""
    format: DeliveryFormat = DeliveryFormat.STANDARD
    ordered: StrictBool = False
    signature: SignatureScheme = SignatureScheme.SYMMETRIC
    is_active: StrictBool = True


class RotateSecret(BaseModel):
    """`POST /api/v1/webhooks/{id}/rotate-secret`: at most 7 days of overlap."""

    model_config = ConfigDict(extra="forbid")

    overlap_seconds: Annotated[float, Field(ge=0, le=604_800, strict=True)] = 86_400
    secret: str | None = None


class RecoverRequest(BaseModel):
    """`POST /api/v1/webhooks/{id}/recover`."""

    model_config = ConfigDict(extra="forbid")

    since: Timestamp


class ReplayRequest(BaseModel):
    """`POST /api/v1/webhooks/{id}/replay`."""

    model_config = ConfigDict(extra="forbid")

    since: Timestamp
    until: Timestamp | None = None
    event_types: list[str] | None = None


class CreateKey(BaseModel):
    """`POST /api/v1/keys`."""

    model_config = ConfigDict(extra="forbid")

    name: ShortName
    scope: Scope = Scope.WRITE
    rate_limit: Annotated[float, Field(ge=0.001, le=100_000, strict=True)] | None = None
    """Requests a second, to each process; null is what `RINGBACK_KEY_RATE` says."""


class Page(BaseModel):
    """The query of every list."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: str | None = None


class TaskQuery(Page):
    """The query of `GET /api/v1/tasks`."""

    status: TaskStatus | None = None
    model: str | None = None
    task_type: str | None = None
    run_id: str | None = None
    created_after: Timestamp | None = None
    created_before: Timestamp | None = None
    metadata: dict[str, str] = {}


class EventQuery(Page):
    """The query of `GET /api/v1/events`; `after` is what `Last-Event-ID` says where there is no header."""

    event_types: list[str] | None = None
    model: list[str] | None = None
    task_type: list[str] | None = None
    task_id: str | None = None
    run_id: list[str] | None = None
    after: str | None = None


class DeliveryQuery(Page):
    """The query of `GET /api/v1/deliveries`."""

    status: DeliveryStatus | None = None
    webhook_id: str | None = None
    event_id: str | None = None
    task_id: str | None = None
    created_after: Timestamp | None = None
    created_before: Timestamp | None = None


class WaitQuery(BaseModel):
    """The long poll's query, as Pi has it: `timeout_seconds` is 1 to 30, and 20 if it is not given."""

    wait_for_completion: bool = False
    timeout_seconds: Annotated[float, Field(ge=1, le=30)] = 20


class TaskIncludes(BaseModel):
    """What else `GET /api/v1/tasks/{id}` is to tell."""

    include: Literal["attempts"] | None = None


class HistoryQuery(BaseModel):
    """The query of `GET /api/open/tasks/histories` (contracts/piapi.md): `page_size` is at most 100."""

    page: Annotated[int, Field(ge=1, le=100_000)] = 1
    page_size: Annotated[int, Field(ge=1, le=100)] = 10
    model: str | None = None
    start_time: Timestamp | None = None
    end_time: Timestamp | None = None


class CancelQuery(BaseModel):
    """The query of `DELETE /api/v1/tasks`: both are required."""

    created_before: Timestamp
    model: ShortName
