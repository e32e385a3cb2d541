"""The state machine of a task: the table of allowed transitions, and `decide`, which every change goes through.

Why the end of a task does not depend on the order of its updates: webhooks arrive late, twice and out of order, and a
poll may return an older state than a webhook that was applied before it. Five rules make the outcome the same for any
order of the updates of a provider's history, repeats included, and keep any event from being written twice:

- A task that has not ended keeps the greatest snapshot that it has received, in the total order that
  `receiver.domain.revisions` defines, and the furthest state. A maximum is the same in whatever order its candidates
  arrive.
- A snapshot replaces the stored one as a whole, because a merge would depend on the order of the parts.
- The first terminal state stands: a history has one, apart from the correction below. A different one that arrives
  later is kept as a receipt and changes nothing.
- One correction is allowed, `failed → completed`, and only when the provider itself reports it: a provider may finish
  work after it has reported a failure, and the client has paid for that output. Of these two, `completed` wins in
  either order of arrival, because `completed → failed` is not in `ALLOWED`.
- A completed task has the result of a `completed`; only if none had one, that of the greatest running snapshot, or of
  one that arrives after the end. Some providers report the end first and the result later, or an empty end after it.

`tests/unit/test_transitions_properties.py` checks this for generated histories.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from models import TERMINAL, EventType, ReceiptReason, Submission, TaskStatus
from receiver.domain.decisions import (
    NOTHING,
    Decision,
    content,
    is_unsent,
    next_look,
    no_faults,
    not_postponed,
    provider_id_changes,
    snapshot_of,
    without_content,
)
from receiver.domain.ends import end, late_result
from receiver.domain.outputs import has_output, leaf_count
from receiver.domain.revisions import RANK, WITHOUT_RESULT, final_revision, is_end, revision_of
from receiver.domain.schedules import PollSchedule, retry_delay
from receiver.domain.task_state import TaskState
from receiver.domain.updates import ProviderUpdate, Source, cancellation
from receiver.errors import Conflict

ALLOWED: Mapping[str, frozenset[TaskStatus]] = {
    TaskStatus.QUEUED: frozenset(TaskStatus) - {TaskStatus.QUEUED},
    TaskStatus.STAGED: frozenset({TaskStatus.QUEUED, TaskStatus.PENDING, TaskStatus.PROCESSING}) | TERMINAL,
    TaskStatus.PENDING: frozenset({TaskStatus.QUEUED, TaskStatus.PROCESSING}) | TERMINAL,
    TaskStatus.PROCESSING: frozenset({TaskStatus.QUEUED}) | TERMINAL,
    TaskStatus.COMPLETED: frozenset(),
    TaskStatus.FAILED: frozenset({TaskStatus.COMPLETED}),
    TaskStatus.CANCELLED: frozenset(),
}
"""The states that a task may move to from each state. It moves back to `queued` only for another attempt.

`decide` looks up the terminal states alone. Its other moves follow from `RANK` and from the attempts that are left;
`tests/unit/test_transitions_properties.py` checks each of them against this table."""

RETRYABLE = frozenset({TaskStatus.FAILED, TaskStatus.CANCELLED})
"""The terminal states after which a client may request another attempt. A request is not an update, so these
transitions are not in `ALLOWED`."""
_NEW_ATTEMPT: Mapping[str, Any] = {
    "status": TaskStatus.QUEUED,
    "submission": Submission.WAITING,
    "provider_task_id": None,
    "handle": None,
    "progress": 0,
    "revision": "",
    "words": None,
    "output": None,
    "logs": None,
    "detail": None,
    "meta": None,
    "started_at": None,
    "poll_count": 0,
    "missing_count": 0,
    "missing_since": None,
    "exception_count": 0,
}
"""The columns that every further attempt resets, and their values."""
_MOST_WORDS = 8
"""How many unknown status words of a provider are stored for one task; further ones are ignored."""


def decide(
    task: TaskState, update: ProviderUpdate, *, now: datetime, schedule: PollSchedule, jitter: float = 0.5
) -> Decision:
    """Return what `update` changes on `task`.

    The checks stand in this order because each assumes the ones before it: whether the update is about the current
    attempt, whether it is still valid, whether the task has ended, and only then what the update reports. `jitter` is
    in [0, 1) and varies the backoff of another attempt.
    """
    superseded_reason = _superseded_reason(task, update)
    if superseded_reason:
        return Decision(receipt=ReceiptReason.SUPERSEDED, message=superseded_reason)
    if _is_outdated(task, update):
        return NOTHING
    if task.status in TERMINAL:
        return _after_end(task, update, now, schedule)
    if update.status is None:
        return _record_unknown_word(task, update, now, schedule)
    if update.status in TERMINAL:
        if update.status == TaskStatus.CANCELLED and not update.by_provider and not is_unsent(task):
            return NOTHING  # the provider may have the task, and then only the provider can cancel it
        if _has_attempts_left(task, update):
            return _start_next_attempt(task, update, now, jitter)
        return end(task, update, now)
    return _move_forward(task, update, now, schedule)


def retry(task: TaskState, now: datetime) -> Decision:
    """Return what a client's request for another attempt changes: the task is queued, and due to be sent now.

    From then on, updates of earlier attempts are superseded. Raises `Conflict` for a task that has neither failed nor
    been cancelled.
    """
    if task.status not in RETRYABLE:
        raise Conflict(f"the task is {task.status}: only a failed or cancelled task can be retried")
    attempt = task.attempt + 1
    changes = {
        **_NEW_ATTEMPT,
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


def recall(task: TaskState, now: datetime) -> Decision:
    """Return what cancelling the run of a step's task changes.

    A task that waits to be sent is cancelled. Any other begins no further attempt, and is due for its recall: its
    provider is asked to cancel it (`receiver.tracking.recall`). One that is being sent is due when the outcome of the
    create call is applied: until then it is leased to the process that calls.
    """
    if task.status in TERMINAL:
        return NOTHING
    if is_unsent(task):
        return end(task, cancellation(Source.SUBMIT, task.attempt, by_provider=False), now)
    changes = {"cancel_requested_at": now, "max_attempts": task.attempt, "poll_count": 0}
    return Decision(changes if task.submission == Submission.SENDING else {**changes, "due_at": now})


def resume(task: TaskState, max_attempts: int) -> Decision:
    """Return what retrying a cancelled run changes on a step's task that is still under way: it is not recalled.

    It has `max_attempts` attempts again, the number that the run's client requested.
    """
    if task.status in TERMINAL:
        return NOTHING
    return Decision({"cancel_requested_at": None, "max_attempts": max(task.attempt, max_attempts)})


def _superseded_reason(task: TaskState, update: ProviderUpdate) -> str | None:
    """Return why an update does not concern the task's current attempt; None if it does.

    Each attempt is a separate task at the provider, and the provider's webhooks and poll results of an earlier one may
    arrive after the next has begun. Applied, its failure would end the current attempt, and its success would complete
    the task with the output of a provider task that the row no longer names. Both the attempt number and the provider's
    task id are compared, because an update may lack either: the number is known from our webhook URL and our polls, the
    id from the provider. A superseded webhook is kept as a receipt: its output may be one that the client has paid for.
    """
    if update.attempt is not None and update.attempt != task.attempt:
        money = ""
        if update.provider_task_id and update.attempt < task.attempt:
            charge = "charges" if update.status == TaskStatus.COMPLETED else "may charge"
            money = (
                f"; the provider made that one too, and {charge} for it: its task there is {update.provider_task_id}"
            )
        return f"it is about attempt {update.attempt}, but the current attempt is {task.attempt}{money}"
    if task.provider_task_id and update.provider_task_id and task.provider_task_id != update.provider_task_id:
        return "it is about a provider task other than the current attempt's"
    return None


def _is_outdated(task: TaskState, update: ProviderUpdate) -> bool:
    """Return whether the task has changed in a way that makes the update invalid.

    A conclusion of Ringback's (a time-out, an unknown submission) is invalid if the task has received an update since
    it was drawn. The failure of a create call is invalid if an update has shown that the provider has the task:
    applying it would fail a task that runs, or start another attempt and pay for it twice.
    """
    if update.last_update_at is not None and update.last_update_at != task.last_update_at:
        return True
    failed_create = update.source == Source.SUBMIT and update.status == TaskStatus.FAILED
    return failed_create and update.provider_task_id is None and task.provider_task_id is not None


def _after_end(task: TaskState, update: ProviderUpdate, now: datetime, schedule: PollSchedule) -> Decision:
    """Return what an update changes on a task that has ended: nothing, a correction, a late result, or a receipt.

    The correction is the only entry that `ALLOWED` has for a terminal state, `failed → completed`. The event that it
    writes names the event that it corrects, so that a subscriber who acted on the failure can undo it.
    """
    if not update.by_provider:
        return NOTHING
    is_unproven = task.status == TaskStatus.FAILED and task.provider_task_id is None
    if is_unproven and update.provider_task_id and update.status != TaskStatus.COMPLETED:
        return _found_after_end(task, update, now, schedule)
    if update.status in TERMINAL and update.status != task.status:
        if update.status in ALLOWED[task.status]:
            return end(task, update, now)
        return _conflict(f"the task is {task.status}, but the update says {update.status}")
    if task.status == TaskStatus.COMPLETED and (late := late_result(task, update, now)) is not None:
        return late
    if _differs(task, update):
        said = f"an unknown status ({update.word})" if update.status is None else "another result or reason"
        return _conflict(f"the task is {task.status}, and the update has {said}")
    return NOTHING


def _found_after_end(task: TaskState, update: ProviderUpdate, now: datetime, schedule: PollSchedule) -> Decision:
    """Return what changes when the provider turns out to have a task that failed without proof.

    The state stands, for the failure was told. The provider's id is kept, and while the provider has not ended the task
    it is looked at on: it may complete, which corrects the failure.
    """
    said = update.status or repr(update.word)
    message = (
        f"the task is {task.status}, but the provider made it all the same, and may charge for it: its task there is "
        f"{update.provider_task_id}, which is {said}"
    )
    due_at = None if update.status in TERMINAL else next_look(task, update, now, schedule)
    changes = {**provider_id_changes(task, update), "due_at": due_at, "poll_count": 0}
    return Decision(changes, receipt=ReceiptReason.CONFLICTING, message=message)


def _conflict(message: str) -> Decision:
    return Decision(receipt=ReceiptReason.CONFLICTING, message=message)


def _differs(task: TaskState, update: ProviderUpdate) -> bool:
    """Return whether an update reports what neither the task's end nor an earlier snapshot of it can have had."""
    if update.status is None:
        return bool(update.word) and (has_output(update.output) or update.error is not None)
    if update.status != task.status:
        return False
    if is_end(task.revision):
        return final_revision(update) not in (task.revision, WITHOUT_RESULT)
    # It ended by Ringback's own conclusion, or by an older version.
    return task.status != TaskStatus.COMPLETED and (has_output(update.output) or update.error is not None)


def _record_unknown_word(task: TaskState, update: ProviderUpdate, now: datetime, schedule: PollSchedule) -> Decision:
    """Return what a status word that Ringback does not know changes: never the state.

    Each word has one event, and what the update says besides is kept as a running task's snapshot: the word may well
    mean an end.
    """
    known = task.words or []
    is_new_word = bool(update.word) and update.word not in known and len(known) < _MOST_WORDS
    says_more = bool(update.progress or update.logs or update.error or leaf_count(update.output))
    new_revision = revision_of(update) if says_more else ""
    is_newer = new_revision > task.revision
    if not is_new_word and not is_newer:
        return _without_change(task, update, now, schedule)
    words = sorted([*known, update.word]) if is_new_word else task.words
    changes = {
        **provider_id_changes(task, update),
        **({**content(update), "revision": new_revision} if is_newer else {}),
        **_news(task, now),
        "words": words,
        "due_at": next_look(task, update, now, schedule),
    }
    snapshot = snapshot_of(task, update, TaskStatus(task.status)) | {"words": words}
    if update.word:
        snapshot["provider_status"] = update.word
    return _with_stored_content(Decision(changes, EventType.TASK_UPDATED, snapshot), is_newer)


def _move_forward(task: TaskState, update: ProviderUpdate, now: datetime, schedule: PollSchedule) -> Decision:
    status = update.status
    assert status is not None  # noqa: S101 - decide() has checked it
    new_revision = revision_of(update)
    is_newer = new_revision > task.revision
    if not is_newer and RANK[status] <= RANK[task.status]:
        return _without_change(task, update, now, schedule)
    changes = {
        **provider_id_changes(task, update),
        **({**content(update), "revision": new_revision} if is_newer else {}),
        **_news(task, now),
        "status": status,
        "due_at": next_look(task, update, now, schedule),
    }
    is_submitted = task.status == TaskStatus.QUEUED
    event = EventType.TASK_SUBMITTED if is_submitted else EventType.TASK_UPDATED
    return _with_stored_content(Decision(changes, event, snapshot_of(task, update, status)), is_newer)


def _with_stored_content(decision: Decision, is_newer: bool) -> Decision:
    """Return a decision whose event shows the stored content, unless the update's is the newer one."""
    if not is_newer:
        decision.keeps_content = True
        decision.snapshot = without_content(decision.snapshot)
    return decision


def _news(task: TaskState, now: datetime) -> dict[str, Any]:
    return {"updated_at": now, "last_update_at": now, "poll_count": 0, **no_faults(task)}


def _has_attempts_left(task: TaskState, update: ProviderUpdate) -> bool:
    may_restart = task.attempt < task.max_attempts and task.cancel_requested_at is None
    return update.status == TaskStatus.FAILED and update.retryable and may_restart


def _start_next_attempt(task: TaskState, update: ProviderUpdate, now: datetime, jitter: float) -> Decision:
    delay = retry_delay(task.attempt, task.backoff_seconds, jitter)
    changes = {
        **_NEW_ATTEMPT,
        "attempt": task.attempt + 1,
        "error": update.error,
        "updated_at": now,
        "last_update_at": now,
        "due_at": now + timedelta(seconds=delay),
    }
    snapshot = snapshot_of(task, update, TaskStatus.QUEUED) | {
        "submission": Submission.WAITING,
        "retry_at": now + timedelta(seconds=delay),
    }
    return Decision(changes, EventType.TASK_UPDATED, snapshot)


def _without_change(task: TaskState, update: ProviderUpdate, now: datetime, schedule: PollSchedule) -> Decision:
    """Return what an update without a newer snapshot changes: a poll is counted, and a provider's id is learned.

    A repeated webhook postpones no poll; otherwise a provider that repeats an old state could postpone it indefinitely.
    """
    changes = provider_id_changes(task, update)
    if update.source == Source.POLL:
        changes |= no_faults(task)
        changes["poll_count"] = task.poll_count + 1
        # A known status is an answer, and so it is news for the time-out; an unknown word is not.
        heard_at = task.last_update_at if update.status is None else now
        if heard_at != task.last_update_at:
            changes["last_update_at"] = heard_at
        is_recalled = task.cancel_requested_at is not None
        after_look = schedule.after_recall if is_recalled else schedule.after_poll
        changes["due_at"] = not_postponed(task, update, now, after_look(task.poll_count + 1, heard_at, now))
    if update.provider_task_id in changes.values():
        changes.update(last_update_at=now, poll_count=0, due_at=next_look(task, update, now, schedule))
    return Decision(changes) if changes else NOTHING
