"""What an update does to a task. The table and the one function that every change of state goes through.

For any provider's history, with repeats and in any order, the end is the same and no event is made twice:
a task that has not ended keeps the greatest of what was heard in a fixed order (`revision`), the first terminal
state stands, and one correction is allowed, `failed → completed`, when the provider itself says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

import orjson

from models import TERMINAL, EventType, ReceiptReason, Submission, TaskStatus
from receiver.domain.outputs import leaf_count
from receiver.domain.schedules import poll_delay, retry_delay
from receiver.domain.updates import ProviderUpdate, Source
from receiver.errors import Conflict

RANK: Mapping[str, int] = {
    TaskStatus.QUEUED: 0,
    TaskStatus.STAGED: 1,
    TaskStatus.PENDING: 2,
    TaskStatus.PROCESSING: 3,
}
"""The order of the states that are not terminal: a task only goes forward."""

ALLOWED: Mapping[str, frozenset[TaskStatus]] = {
    TaskStatus.QUEUED: frozenset(TaskStatus) - {TaskStatus.QUEUED},
    TaskStatus.STAGED: frozenset({TaskStatus.QUEUED, TaskStatus.PENDING, TaskStatus.PROCESSING}) | TERMINAL,
    TaskStatus.PENDING: frozenset({TaskStatus.QUEUED, TaskStatus.PROCESSING}) | TERMINAL,
    TaskStatus.PROCESSING: frozenset({TaskStatus.QUEUED}) | TERMINAL,
    TaskStatus.COMPLETED: frozenset(),
    TaskStatus.FAILED: frozenset({TaskStatus.COMPLETED}),
    TaskStatus.CANCELLED: frozenset(),
}
"""Where a task may go from each state. Back to `queued` only for another attempt."""

ENDING: Mapping[TaskStatus, EventType] = {
    TaskStatus.COMPLETED: EventType.TASK_COMPLETED,
    TaskStatus.FAILED: EventType.TASK_FAILED,
    TaskStatus.CANCELLED: EventType.TASK_CANCELLED,
}
STORED_ONCE = ("output", "logs", "detail", "meta")
"""What a `task.completed` leaves to the task's row: that never changes again, and everybody reads it there."""
RETRYABLE = frozenset({TaskStatus.FAILED, TaskStatus.CANCELLED})
"""The ends after which a client may ask for another attempt. That is no update: `ALLOWED` knows nothing of it."""
_BEGUN_ANEW: Mapping[str, Any] = {
    "status": TaskStatus.QUEUED,
    "submission": Submission.WAITING,
    "provider_task_id": None,
    "progress": 0,
    "revision": "",
    "words": None,
    "output": None,
    "logs": None,
    "detail": None,
    "meta": None,
    "started_at": None,
    "poll_count": 0,
}
"""What every further attempt begins with."""
_MOST_WORDS = 8


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """When to look at a task again: seconds to the first look, the longest wait, the end of patience."""

    first: float
    longest: float
    timeout: float

    def after_update(self, now: datetime) -> datetime:
        """Return the next look at a task that was just heard of."""
        return now + timedelta(seconds=min(self.first, self.timeout))

    def after_poll(self, poll_count: int, last_update_at: datetime, now: datetime) -> datetime:
        """Return the next look after the `poll_count`-th that brought no news; never past the time-out."""
        delay = poll_delay(poll_count, first=self.first, longest=self.longest)
        return min(now + timedelta(seconds=delay), max(self.deadline(last_update_at), now))

    def deadline(self, last_update_at: datetime) -> datetime:
        """Return when a task that nobody heard of since `last_update_at` times out."""
        return last_update_at + timedelta(seconds=self.timeout)


@dataclass(slots=True)
class TaskState:
    """What a decision needs to know of a task's row. Not frozen, which costs thrice the time for every update."""

    id: int
    uid: str
    organization_id: int
    status: str
    submission: str
    attempt: int
    max_attempts: int
    backoff_seconds: float
    provider_task_id: str | None
    progress: int
    revision: str
    words: list[str] | None
    callback_id: int | None
    ended_event: str | None
    poll_count: int
    last_update_at: datetime
    model: str = ""
    task_type: str = ""
    metadata: dict[str, Any] | None = None
    started_at: datetime | None = None
    provider: str = ""
    run_uid: str | None = None
    step: str | None = None

    def take(self, changes: Mapping[str, Any]) -> None:
        """Be as the row is with these columns changed; the state knows of some of them."""
        for name, value in changes.items():
            if name in _STATE_NAMES:
                setattr(self, name, value)


STATE_COLUMNS = tuple(each.name for each in fields(TaskState))
"""The columns of a task's row that its state has, in the order of its fields: both databases read just these."""
_STATE_NAMES = frozenset(STATE_COLUMNS)


@dataclass(slots=True)
class Decision:
    """What to write: columns of the task's row, an event with its snapshot, a reason for a receipt; or nothing."""

    changes: dict[str, Any] = field(default_factory=dict)
    event: EventType | None = None
    snapshot: dict[str, Any] = field(default_factory=dict)
    receipt: ReceiptReason | None = None
    message: str = ""
    keeps_content: bool = False
    """Whether the task ended and its content stays as it is: then the event's snapshot shows what stays."""


NOTHING = Decision()


def decide(
    task: TaskState, update: ProviderUpdate, *, now: datetime, schedule: PollSchedule, jitter: float = 0.5
) -> Decision:
    """Say what `update` does to `task`. Pure; `jitter` is in [0, 1) and spreads the backoff of another attempt."""
    stale = _superseded(task, update)
    if stale:
        return Decision(receipt=ReceiptReason.SUPERSEDED, message=stale)
    if _is_void(task, update):
        return NOTHING
    if task.status in TERMINAL:
        return _after_the_end(task, update, now)
    if update.status is None:
        return _unknown_word(task, update, now, schedule)
    if update.status in TERMINAL:
        if update.status == TaskStatus.CANCELLED and not update.by_provider and not _is_unsent(task):
            return NOTHING  # what the provider may have is the provider's to cancel
        if _has_another_try(task, update):
            return _try_again(task, update, now, jitter)
        return _end(task, update, now)
    return _move_forward(task, update, now, schedule)


def retry(task: TaskState, now: datetime) -> Decision:
    """Say what it does to a task that its client wants done again: another attempt, sent as soon as its turn comes.

    What is heard of the attempts before speaks of superseded ones from then on. Raises `Conflict` for a task that has
    neither failed nor been cancelled.
    """
    if task.status not in RETRYABLE:
        raise Conflict(f"the task is {task.status}: only one that failed or was cancelled can be retried")
    attempt = task.attempt + 1
    changes = {
        **_BEGUN_ANEW,
        "attempt": attempt,
        "max_attempts": max(task.max_attempts, attempt),
        "error": None,
        "ended_at": None,
        "ended_event": None,
        "updated_at": now,
        "last_update_at": now,
        "due_at": now,
    }
    snapshot = {
        "status": TaskStatus.QUEUED,
        "attempt": attempt,
        "progress": 0,
        "submission": Submission.WAITING,
        "retries": task.ended_event,
    }
    return Decision(changes, EventType.TASK_UPDATED, snapshot)


def revision(status: TaskStatus, progress: int, logs: list[Any] | None, output: dict[str, Any] | None) -> str:
    """Return a text whose order tells which of two snapshots of a running task is newer.

    The state counts first, then progress, then how much there is; the digest only keeps equal ones apart, so that
    the end does not depend on the order in which they came.
    """
    digest = blake2b(orjson.dumps([logs, output], option=orjson.OPT_SORT_KEYS), digest_size=6).hexdigest()
    return f"{RANK[status]}.{progress:03d}.{len(logs or ()):06d}.{leaf_count(output):06d}.{digest}"


def _superseded(task: TaskState, update: ProviderUpdate) -> str | None:
    if update.attempt is not None and update.attempt != task.attempt:
        return f"it speaks of attempt {update.attempt}, and attempt {task.attempt} is under way"
    if task.provider_task_id and update.provider_task_id and task.provider_task_id != update.provider_task_id:
        return "it speaks of another provider task than this attempt's"
    return None


def _is_void(task: TaskState, update: ProviderUpdate) -> bool:
    """Say whether what happened meanwhile leaves an update without ground.

    A conclusion of ours is void when there is newer news; a create call's failure is, when the provider's task was
    heard of all the same: believing it would fail, or pay for again, what is running.
    """
    if update.last_update_at is not None and update.last_update_at != task.last_update_at:
        return True
    failed_create = update.source == Source.SUBMIT and update.status == TaskStatus.FAILED
    return failed_create and update.provider_task_id is None and task.provider_task_id is not None


def _after_the_end(task: TaskState, update: ProviderUpdate, now: datetime) -> Decision:
    if update.status is None or update.status not in TERMINAL or update.status == task.status:
        return NOTHING
    if not update.by_provider:
        return NOTHING
    if update.status in ALLOWED[task.status]:
        return _end(task, update, now)
    return Decision(
        receipt=ReceiptReason.CONFLICTING, message=f"the task is {task.status}, and this says {update.status}"
    )


def _unknown_word(task: TaskState, update: ProviderUpdate, now: datetime, schedule: PollSchedule) -> Decision:
    known = task.words or []
    if not update.word or update.word in known or len(known) >= _MOST_WORDS:
        return _no_news(task, update, now, schedule)
    changes = {
        **_identified(task, update),
        "words": sorted([*known, update.word]),
        "updated_at": now,
        "last_update_at": now,
        "poll_count": 0,
        "due_at": schedule.after_update(now),
    }
    snapshot = _snapshot(task, update, TaskStatus(task.status)) | {"provider_status": update.word}
    return Decision(changes, EventType.TASK_UPDATED, snapshot)


def _move_forward(task: TaskState, update: ProviderUpdate, now: datetime, schedule: PollSchedule) -> Decision:
    status = update.status
    assert status is not None  # noqa: S101 - decide() asked
    newer = revision(status, update.progress, update.logs, update.output)
    if newer <= task.revision:
        return _no_news(task, update, now, schedule)
    changes = {
        **_identified(task, update),
        **_content(update),
        "status": status,
        "revision": newer,
        "updated_at": now,
        "last_update_at": now,
        "poll_count": 0,
        "due_at": schedule.after_update(now),
    }
    first = task.status == TaskStatus.QUEUED
    return Decision(
        changes,
        EventType.TASK_SUBMITTED if first else EventType.TASK_UPDATED,
        _snapshot(task, update, status),
    )


def _end(task: TaskState, update: ProviderUpdate, now: datetime) -> Decision:
    status = update.status
    assert status is not None  # noqa: S101 - decide() asked
    changes = {
        **_identified(task, update),
        **(_content(update) if _tells_content(update) else {}),
        "status": status,
        "error": None if status == TaskStatus.COMPLETED else update.error,
        "progress": _progress(task, update, status),
        "words": None,  # the events have them; kept here they would depend on which came before the end
        "ended_at": update.ended_at or now,
        "updated_at": now,
        "last_update_at": now,
        "due_at": None,
    }
    if update.source == Source.SUBMIT and status == TaskStatus.FAILED and update.provider_task_id is None:
        changes["submission"] = Submission.REFUSED
    snapshot = _snapshot(task, update, status) | {
        "submission": changes.get("submission", task.submission),
        "ended_at": changes["ended_at"],
    }
    if status == TaskStatus.COMPLETED:
        for name in STORED_ONCE:
            snapshot.pop(name, None)
    if task.status in TERMINAL:
        snapshot["corrects"] = task.ended_event
    return Decision(changes, ENDING[status], snapshot, keeps_content=not _tells_content(update))


def _is_unsent(task: TaskState) -> bool:
    return task.status == TaskStatus.QUEUED and task.submission == Submission.WAITING


def _has_another_try(task: TaskState, update: ProviderUpdate) -> bool:
    return update.status == TaskStatus.FAILED and update.retryable and task.attempt < task.max_attempts


def _try_again(task: TaskState, update: ProviderUpdate, now: datetime, jitter: float) -> Decision:
    delay = retry_delay(task.attempt, task.backoff_seconds, jitter)
    changes = {
        **_BEGUN_ANEW,
        "attempt": task.attempt + 1,
        "error": update.error,
        "updated_at": now,
        "last_update_at": now,
        "due_at": now + timedelta(seconds=delay),
    }
    snapshot = _snapshot(task, update, TaskStatus.QUEUED) | {
        "submission": Submission.WAITING,
        "retry_at": now + timedelta(seconds=delay),
    }
    return Decision(changes, EventType.TASK_UPDATED, snapshot)


def _no_news(task: TaskState, update: ProviderUpdate, now: datetime, schedule: PollSchedule) -> Decision:
    changes = _identified(task, update)
    if update.source == Source.POLL:
        changes["poll_count"] = task.poll_count + 1
        changes["due_at"] = schedule.after_poll(task.poll_count + 1, task.last_update_at, now)
    if update.provider_task_id in changes.values():
        changes.update(last_update_at=now, poll_count=0, due_at=schedule.after_update(now))
    return Decision(changes) if changes else NOTHING


def _identified(task: TaskState, update: ProviderUpdate) -> dict[str, Any]:
    """Learn the provider's id, whoever brought it first: the create answer, a webhook, a look at its history."""
    if not update.provider_task_id or (task.provider_task_id and task.submission == Submission.ACCEPTED):
        return {}
    return {"provider_task_id": update.provider_task_id, "submission": Submission.ACCEPTED}


def _content(update: ProviderUpdate) -> dict[str, Any]:
    """Take the snapshot whole: merging the parts would make the end depend on the order they came in."""
    content: dict[str, Any] = {
        "progress": update.progress,
        "output": update.output,
        "error": update.error,
        "logs": update.logs,
        "detail": update.detail,
        "meta": update.meta,
    }
    if update.started_at is not None:
        content["started_at"] = update.started_at
    return content


def _progress(task: TaskState, update: ProviderUpdate, status: TaskStatus) -> int:
    if status == TaskStatus.COMPLETED:
        return 100
    return update.progress if _tells_content(update) else task.progress


def _tells_content(update: ProviderUpdate) -> bool:
    """Say whether the update tells the content too; if not, what the provider told last stays."""
    return update.by_provider and update.is_snapshot


def _snapshot(task: TaskState, update: ProviderUpdate, status: TaskStatus) -> dict[str, Any]:
    snapshot: dict[str, Any] = {
        "status": status,
        "attempt": task.attempt,
        "progress": _progress(task, update, status),
        "source": update.source,
        "submission": _identified(task, update).get("submission", task.submission),
        "provider_task_id": update.provider_task_id or task.provider_task_id,
        "error": update.error,
        "output": update.output,
        "logs": update.logs,
        "detail": update.detail,
        "meta": update.meta,
        "started_at": None if status == TaskStatus.QUEUED else update.started_at or task.started_at,
    }
    return {name: value for name, value in snapshot.items() if value is not None}
