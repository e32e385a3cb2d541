"""What a decision about a task is, and the parts that several kinds of decisions are made of."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from models import EventType, ReceiptReason, Submission, TaskStatus
from receiver.domain.schedules import PollSchedule
from receiver.domain.task_state import TaskState
from receiver.domain.updates import ProviderUpdate, Source

ENDING: Mapping[TaskStatus, EventType] = {
    TaskStatus.COMPLETED: EventType.TASK_COMPLETED,
    TaskStatus.FAILED: EventType.TASK_FAILED,
    TaskStatus.CANCELLED: EventType.TASK_CANCELLED,
}
"""The terminal states, and the event that a task writes when it enters each."""
ENDS = frozenset(ENDING.values())
STORED_ONCE = ("output", "logs", "detail", "meta")
"""Columns that the snapshot of a `task.completed` event omits. The row of a task that completed with its result never
changes again, so readers take them from the row, and a large output is stored once. Only the event of a completion
without its final result has them, for the result may still come."""


class Decision(Struct):
    """What to write for an update.

    `changes` are columns of the task's row, by name. `event` is the event to append, with `snapshot` as its data.
    `receipt` is the reason to keep the update as a receipt, with `message` as its explanation. All are empty for an
    update that changes nothing (`NOTHING`).
    """

    changes: dict[str, Any] = field(default_factory=dict)
    event: EventType | None = None
    snapshot: dict[str, Any] = field(default_factory=dict)
    receipt: ReceiptReason | None = None
    message: str = ""
    keeps_content: bool = False
    """Whether stored content stays. The caller then copies it into the event's snapshot."""


NOTHING = Decision()


def is_unsent(task: TaskState) -> bool:
    """Return whether the provider certainly has nothing of a task's present attempt, which waits to be sent."""
    return task.status == TaskStatus.QUEUED and task.submission == Submission.WAITING


def next_look(task: TaskState, update: ProviderUpdate, now: datetime, schedule: PollSchedule) -> datetime:
    """Return when to look at a task after news: at once if it is to be recalled, and its provider's id is known now."""
    if task.cancel_requested_at is None:
        return not_postponed(task, update, now, schedule.after_update(now))
    if provider_id_changes(task, update):
        return now
    return not_postponed(task, update, now, schedule.after_recall(0, now, now))


def not_postponed(task: TaskState, update: ProviderUpdate, now: datetime, planned: datetime) -> datetime:
    """Return when to look at a task next: at the `planned` time, or now if a look is due and not begun.

    A webhook without the task's state asks for such a look, and may come before the answer to a call that was made
    earlier. That answer knows nothing of it, so it may not postpone the look. A webhook with the state may.
    """
    is_asked = task.submission == Submission.ACCEPTED and not task.leased
    is_due = is_asked and task.due_at is not None and task.due_at <= now
    return now if is_due and update.source != Source.WEBHOOK else planned


def provider_id_changes(task: TaskState, update: ProviderUpdate) -> dict[str, Any]:
    """Return the changes that record the provider's task id; none if it is known.

    Any update may be the first to have it: the response to the create call, a webhook, or the provider's task list.
    """
    if not update.provider_task_id or (task.provider_task_id and task.submission == Submission.ACCEPTED):
        return {}
    named = {"provider_task_id": update.provider_task_id, "submission": Submission.ACCEPTED}
    return named if update.handle is None else {**named, "handle": update.handle}


def no_faults(task: TaskState) -> dict[str, Any]:
    """Return the changes that say that the provider knows the task, and that acting on it works."""
    changes: dict[str, Any] = {}
    if task.missing_count:
        changes |= {"missing_count": 0, "missing_since": None}
    if task.exception_count:
        changes["exception_count"] = 0
    return changes


def content(update: ProviderUpdate) -> dict[str, Any]:
    """Return the columns of the update's snapshot, all of them: merged parts would depend on the order of arrival."""
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


def has_content(update: ProviderUpdate) -> bool:
    """Return whether the update has content as well as a state; if not, the content of the last snapshot stays."""
    return update.by_provider and update.is_snapshot


def progress(task: TaskState, update: ProviderUpdate, status: TaskStatus) -> int:
    """Return the progress of a task in percent, after `update` has brought it to `status`."""
    if status == TaskStatus.COMPLETED:
        return 100
    return update.progress if has_content(update) else task.progress


def snapshot_of(task: TaskState, update: ProviderUpdate, status: TaskStatus) -> dict[str, Any]:
    """Return the data of the event of a task that `update` brings to `status`, without what is null."""
    snapshot: dict[str, Any] = {
        "status": status,
        "attempt": task.attempt,
        "progress": progress(task, update, status),
        "source": update.source,
        "submission": provider_id_changes(task, update).get("submission", task.submission),
        "provider_task_id": update.provider_task_id or task.provider_task_id,
        "error": update.error,
        "output": update.output,
        "logs": update.logs,
        "detail": update.detail,
        "meta": update.meta,
        "started_at": None if status == TaskStatus.QUEUED else update.started_at or task.started_at,
        "words": task.words,
    }
    return {name: value for name, value in snapshot.items() if value is not None}


def without_content(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Return the data of an event without the columns that are stored once."""
    return {name: value for name, value in snapshot.items() if name not in STORED_ONCE}
