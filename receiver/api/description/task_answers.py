"""Tasks, runs and jobs, as they are answered.

They are made in `receiver.domain.representations` and `receiver.domain.run_representations`.
"""

from typing import Any, Literal

from models import BulkActionKind, BulkActionStatus, RunStatus, StepStatus, Submission, TaskStatus
from receiver.api.description.errors import BulkErrorDetail
from receiver.api.description.forms import Answered, Free, Id, Time, UnixSeconds, absent


class TaskErrorAnswer(Answered):
    """Why a task, or an attempt at it, failed."""

    code: int | float | str | None
    """The provider's own number or word, or one of Ringback's words, such as `timed_out`."""
    message: str | None
    """The provider's words, from wherever it put them."""
    raw_message: str | None = absent()
    detail: Any = absent()
    """What the message was taken from, unless it is just the message."""


class AttemptAnswer(Answered):
    """One attempt at a task."""

    attempt: int
    status: TaskStatus
    provider_task_id: str | None
    error: TaskErrorAnswer | None
    submitted_at: Time | None
    started_at: Time | None
    ended_at: Time | None


class TaskStateAnswer(Answered):
    """A task at one time: as an event tells it."""

    object: Literal["task"]
    task_id: Id
    """Ringback's own id: it exists before the provider answers, and stays the same across attempts."""
    model: str
    task_type: str
    status: TaskStatus
    progress: int
    """Percent."""
    input: Free | None
    """Null for a task that was created elsewhere, until the provider tells it."""
    output: Free | None
    """The provider's output; `image_url`, `image_urls`, `video_url`, `audio_url` and `output_files` are filled in."""
    error: TaskErrorAnswer | None
    logs: list[Any] | Free | str
    metadata: Free
    config: Free
    attempt: int
    """The number of the present attempt."""
    max_attempts: int
    submission: Submission | None
    """How far the create call of the present attempt got."""
    provider: str
    provider_task_id: str | None
    unknown_statuses: list[str]
    """The provider's status words that Ringback does not know."""
    run_id: Id | None
    step: str | None
    usage: Any
    """What the provider says that the task has used."""
    created_at: Time
    updated_at: Time
    started_at: Time | None
    ended_at: Time | None


class TaskAnswer(TaskStateAnswer):
    """A task. One that had several attempts has them all in `attempts`, oldest first."""

    account: str | None
    """The name of the account at the provider that it uses; null for that of the environment."""
    attempts: list[AttemptAnswer] = absent()


class BriefTaskStateAnswer(TaskStateAnswer):
    """A task at one time; with `brief` it is without `input`, `output`, `logs`, `config` and `usage`."""

    input: Free | None = absent()
    output: Free | None = absent()
    logs: list[Any] | Free | str = absent()
    config: Free = absent()
    usage: Any = absent()


class ListedTaskAnswer(BriefTaskStateAnswer):
    """A task in a list; with `brief` it is without `input`, `output`, `logs`, `config` and `usage`."""

    account: str | None
    """The name of the account at the provider that it uses; null for that of the environment."""


class TaskStandingAnswer(Answered):
    """How far a task is, without what it is made of."""

    task_id: Id
    provider_task_id: str | None
    status: TaskStatus
    has_ended: bool
    progress: int
    """Percent."""
    attempt: int
    created_at: Time
    updated_at: Time
    ended_at: Time | None


class WaitAnswer(Answered):
    """How far several tasks are, in the order of the request's ids, each once."""

    object: Literal["wait"]
    mode: Literal["any", "all"]
    timed_out: bool
    ended: list[Id]
    tasks: list[TaskStandingAnswer]


class DryRunAnswer(Answered):
    """What a bulk action would be done to."""

    object: Literal["dry_run"]
    kind: BulkActionKind
    matched: int
    """Exactly how many tasks match and may be acted on."""


class BulkActionAnswer(Answered):
    """A request for all tasks that match, and its progress."""

    object: Literal["bulk_action"]
    id: Id
    kind: BulkActionKind
    requested_by: str
    """The name of the key or the person."""
    status: BulkActionStatus
    filter: Free
    matched: int
    done: int
    failed: int
    failed_by_code: dict[str, int]
    created_at: Time
    ended_at: Time | None


class CreatedTaskAnswer(Answered):
    """A task of a bulk create that was accepted."""

    index: int
    """Its place in the request."""
    task_id: Id


class RefusedTaskAnswer(Answered):
    """A task of a bulk create that was refused."""

    index: int
    error: BulkErrorDetail


class CreatedTasksAnswer(Answered):
    """What became of each task of a bulk create, in the order of the request."""

    object: Literal["list"]
    data: list[CreatedTaskAnswer | RefusedTaskAnswer]


class StandingStepAnswer(Answered):
    """How far a step of a run is."""

    id: str
    status: StepStatus
    job_id: Id | None
    """The id of its task."""
    started_at: UnixSeconds | None
    completed_at: UnixSeconds | None


class StepWithoutResultAnswer(StandingStepAnswer):
    """A step of a run, without its result."""

    action: str
    provider: str
    depends_on: list[str]
    error: Free | None


class RunStepAnswer(StepWithoutResultAnswer):
    """A step of a run."""

    result: Any


class RequestedRetryAnswer(Answered):
    """How a provider's failure of a step is tried again."""

    max_attempts: int
    backoff_seconds: float


class DetailedStepAnswer(RunStepAnswer):
    """A step of a run; with `include=details` also as it was requested, with the attempts of its task."""

    input: Free = absent()
    input_map: dict[str, str] = absent()
    """What comes from other steps."""
    on_failure: Literal["stop", "continue"] = absent()
    retry: RequestedRetryAnswer = absent()
    attempts: list[AttemptAnswer] = absent()


class RunFieldsAnswer(Answered):
    """What every run has. Times are unix seconds."""

    object: Literal["run"]
    id: Id
    org_id: Id
    status: RunStatus
    metadata: Free | None
    created_at: UnixSeconds
    updated_at: UnixSeconds


class RunAnswer(RunFieldsAnswer):
    """A run: a small graph of tasks. Times are unix seconds."""

    steps: list[RunStepAnswer]


class DetailedRunAnswer(RunFieldsAnswer):
    """A run: a small graph of tasks. Times are unix seconds."""

    steps: list[DetailedStepAnswer]


class ListedRunAnswer(RunFieldsAnswer):
    """A run in a list. With `brief` its steps tell only how far they are, and it has how long it took."""

    steps: list[RunStepAnswer | StandingStepAnswer]
    duration_seconds: float | None = absent()


class CreatedStepAnswer(Answered):
    """A step of a new run."""

    id: str
    status: StepStatus


class CreatedRunAnswer(Answered):
    """A new run."""

    object: Literal["run"]
    run_id: Id
    status: RunStatus
    steps: list[CreatedStepAnswer]


class PiJobAnswer(Answered):
    """A task in the form of Pi's job, as deliveries have it. Times are unix seconds."""

    id: Id
    type: str
    status: Literal["queued", "processing", "completed", "failed"]
    result_url: str | None
    error_log: str | None
    payload: Free | None
    created_at: UnixSeconds
    updated_at: UnixSeconds
