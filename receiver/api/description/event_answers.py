"""Events, and what they are about, as pages, streams and deliveries have them."""

from typing import Literal

from models import EventType, Submission, TaskStatus
from receiver.api.description.forms import Answered, Free, Id, Time, UnixSeconds, absent
from receiver.api.description.task_answers import (
    AttemptAnswer,
    BriefTaskStateAnswer,
    PiJobAnswer,
    RunAnswer,
    RunFieldsAnswer,
    RunStepAnswer,
    StepWithoutResultAnswer,
    TaskStateAnswer,
)
from receiver.api.description.webhook_answers import WebhookStateAnswer


class TaskThenAnswer(TaskStateAnswer):
    """A task as it was at an event."""

    corrects: str = absent()
    """The id of the event that this one replaces: the end that it told was wrong."""
    retries: str = absent()
    """The id of the event of the end after which a client asked for another attempt."""
    note: str = absent()
    """Who is charged for what, where the earlier end was Ringback's own conclusion."""


class ListedTaskThenAnswer(BriefTaskStateAnswer):
    """A task as it was at an event of its history; with `brief` it is without what may be large."""

    corrects: str = absent()
    retries: str = absent()
    note: str = absent()


class ListedRunThenAnswer(RunFieldsAnswer):
    """A run as it was at an event; with `brief` its steps are without their results."""

    steps: list[RunStepAnswer | StepWithoutResultAnswer]
    corrects: str = absent()


class RunThenAnswer(RunAnswer):
    """A run as it was at an event."""

    corrects: str = absent()


class WebhookNotice(Answered):
    """What `webhook.failing`, `webhook.disabled` and `ping` are about."""

    webhook: WebhookStateAnswer
    reason: str = absent()
    """Why it was switched off."""


class DeadDeliveryAnswer(Answered):
    """A delivery that was given up."""

    id: Id
    event_id: Id
    event_type: EventType
    webhook_id: Id | None
    task_id: Id | None
    attempts: int
    status_code: int | None
    error: str | None


class DeliveryNotice(Answered):
    """What `delivery.dead` is about."""

    delivery: DeadDeliveryAnswer


class ProviderPauseAnswer(Answered):
    """What `provider.paused` is about."""

    provider: str
    account: str = absent()
    """Of an account of the database."""
    seconds: float
    until: Time


class ProviderRefusesKeyAnswer(Answered):
    """What `provider.unauthorized` is about."""

    provider: str
    account: str = absent()
    """Of an account of the database."""
    message: str


class StorageGapAnswer(Answered):
    """What `storage.unavailable` is about."""

    since: Time
    until: Time
    seconds: float


class StuckTaskAnswer(Answered):
    """A task that has not changed for long."""

    task_id: Id
    model: str
    task_type: str
    status: TaskStatus
    submission: Submission
    provider: str
    provider_task_id: str | None
    unchanged_since: Time


class StuckNotice(Answered):
    """What `task.stuck` is about."""

    task: StuckTaskAnswer


SystemNotice = (
    WebhookNotice | DeliveryNotice | ProviderPauseAnswer | ProviderRefusesKeyAnswer | StorageGapAnswer | StuckNotice
)
"""What system events are about."""


class EventFieldsAnswer(Answered):
    """What every event has. What does not apply is null."""

    object: Literal["event"]
    id: Id
    """The same for every subscriber and every attempt at a delivery."""
    sequence: int
    """What `after` and `Last-Event-ID` take."""
    type: EventType
    timestamp: Time
    created_at: Time
    """The same time."""
    task_id: Id | None
    run_id: Id | None
    source: Literal["webhook", "poll", "submit"] | None
    """How the news came."""
    provider_status: str | None
    """A status word of the provider that Ringback does not know."""
    retry_at: Time | None
    """When another attempt begins."""
    request_id: str | None
    """The request that caused it."""


class EventAnswer(EventFieldsAnswer):
    """A change that was written down."""

    data: TaskThenAnswer | RunThenAnswer | SystemNotice


class ListedEventAnswer(EventFieldsAnswer):
    """A change that was written down; with `brief` its `data` is without what may be large."""

    data: ListedTaskThenAnswer | ListedRunThenAnswer | SystemNotice


class RunEventAnswer(ListedEventAnswer):
    """A change of a run or of one of its tasks, in its history."""


class TaskEventAnswer(EventFieldsAnswer):
    """A change of a task, in its history."""

    data: ListedTaskThenAnswer | SystemNotice


class DiagnosticsAnswer(Answered):
    """The history of a job: all attempts, and the newest events, both oldest first."""

    provider: str
    provider_task_id: str | None
    submission: Submission
    attempt: int
    max_attempts: int
    attempts: list[AttemptAnswer]
    events: list[EventAnswer]
    has_more: bool


class JobAnswer(Answered):
    """A task in the form of Pi's job. Times are unix seconds. With `fields` it has these alone."""

    object: Literal["job"] = absent()
    id: Id = absent()
    org_id: Id = absent()
    type: str = absent()
    status: Literal["queued", "processing", "completed", "failed"] = absent()
    payload: Free | None = absent()
    result_url: str | None = absent()
    error_log: str | None = absent()
    created_at: UnixSeconds = absent()
    updated_at: UnixSeconds = absent()
    job_result: Free | None = absent()
    """The output of a completed task."""
    diagnostics: DiagnosticsAnswer = absent()
    """With `include=diagnostics`."""


class StreamReset(Answered):
    """The data of the stream's event `reset`: the stream cannot resume where the reader was."""

    oldest_id: str | None
    newest_id: str
    message: str


class StreamFrame(Answered):
    """One event of the stream (Server-Sent Events), by the names of its lines."""

    id: str
    """The number that `Last-Event-ID` takes."""
    event: EventType | Literal["reset"]
    data: EventAnswer | StreamReset
    """One line of JSON."""


class StandardBody(Answered):
    """The body of a delivery in the format `standard`."""

    type: EventType
    timestamp: Time
    data: TaskThenAnswer | RunThenAnswer | SystemNotice


class CloudEvent(Answered):
    """The body of a delivery in the format `cloudevents`: CloudEvents 1.0.2 in structured mode."""

    specversion: Literal["1.0"]
    id: Id
    source: str
    type: EventType
    time: Time
    subject: Id = absent()
    """The id of the task or run, of an event that is about one."""
    datacontenttype: Literal["application/json"]
    data: TaskThenAnswer | RunThenAnswer | SystemNotice


class JobThenAnswer(Answered):
    """What an event of a task is about, in Pi's form."""

    job: PiJobAnswer
    corrects: str = absent()
    retries: str = absent()
    note: str = absent()


class PiBody(Answered):
    """The body of a delivery in the format `pi`."""

    id: str
    """`evt_pi_` and the id of the event."""
    object: Literal["event"]
    type: str
    """`job.completed` and `job.failed` for `task.completed` and `task.failed`; other types keep their names."""
    created_at: UnixSeconds
    data: JobThenAnswer | RunThenAnswer | SystemNotice
