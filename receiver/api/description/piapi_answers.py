"""What PiAPI's own paths answer, in its form (`receiver/providers/piapi/CONTRACT.md`)."""

from collections.abc import Sequence
from typing import Any, Literal

from models import EventType
from receiver.api.description.event_answers import RunThenAnswer, SystemNotice
from receiver.api.description.forms import Answered, Free, Id, Passed, Time, UnixSeconds, absent

PiapiTime = Time | Literal["0001-01-01T00:00:00Z"]
PiapiStatus = Literal["pending", "staged", "processing", "completed", "failed", "cancelled"]


class PiapiCallbackAnswer(Answered):
    """The client's own callback; its secret is never shown."""

    endpoint: str
    secret: Literal[""]


class PiapiConfigAnswer(Passed):
    """The config as it was sent."""

    service_mode: Any
    webhook_config: PiapiCallbackAnswer


class PiapiMetaAnswer(Passed):
    """What the provider says about the task, and Ringback's part of it."""

    created_at: Time
    started_at: PiapiTime
    """`0001-01-01T00:00:00Z` if it has not started."""
    ended_at: PiapiTime
    provider_task_id: str | None
    attempt: int
    is_shortened: bool = absent()
    """The page has no room for its documents."""
    corrects: str = absent()
    retries: str = absent()
    note: str = absent()


class PiapiTaskErrorAnswer(Answered):
    """The error of a task; code 0 if there is none."""

    code: int | float | str
    """The provider's number, or one from 90000 for Ringback's own failures."""
    raw_message: str
    message: str
    detail: Any


class PiapiTaskAnswer(Answered):
    """A task in PiAPI's form."""

    task_id: Id
    model: str
    task_type: str
    status: PiapiStatus
    config: PiapiConfigAnswer
    input: Free | None
    output: Free | None
    meta: PiapiMetaAnswer
    detail: Any
    logs: Any
    error: PiapiTaskErrorAnswer


class PiapiActiveMetaAnswer(Answered):
    """The times of an active task."""

    created_at: Time
    started_at: PiapiTime
    ended_at: PiapiTime
    provider_task_id: str | None
    attempt: int


class PiapiActiveTaskAnswer(Answered):
    """A task that has not ended."""

    task_id: Id
    model: str
    task_type: str
    status: PiapiStatus
    meta: PiapiActiveMetaAnswer


class PiapiActiveAnswer(Answered):
    """The tasks of a family that have not ended: their numbers, and the newest 100."""

    staged_count: int
    pending_count: int
    processing_count: int
    active_tasks: list[PiapiActiveTaskAnswer]


class PiapiCancelledAnswer(Answered):
    """What was cancelled of many."""

    cancelled: list[Id]
    not_cancelled: int


class PiapiHistoryAnswer(Answered):
    """A page of tasks, newest first. `list` and `page_size` repeat `data` and `size`."""

    data: Sequence[PiapiTaskAnswer]
    page: int
    size: int
    total: int
    list: Sequence[PiapiTaskAnswer]
    page_size: int


class PiapiBody(Answered):
    """The body of a delivery in the format `piapi`."""

    timestamp: UnixSeconds
    data: PiapiTaskAnswer


class PiapiNotice(Answered):
    """The body of a delivery in the format `piapi` of an event that is not about a task."""

    timestamp: UnixSeconds
    type: EventType
    data: RunThenAnswer | SystemNotice


class PiapiNews(Passed):
    """What a provider reports: a task in PiAPI's form, bare or in `data`. It is read leniently."""

    timestamp: float | str = absent()
    data: Free = absent()
