"""How a task ends, and what its end may still be given later: a correction, or the result.

An end of Ringback's own may be wrong, for it follows from what the provider did not say: such a task is looked at again
later. If the provider completes it after all, the event of the correction says that it charges for it.
"""

from datetime import datetime
from typing import Any

from models import TERMINAL, EventType, Submission, TaskStatus
from receiver.domain.decisions import (
    ENDING,
    Decision,
    content,
    has_content,
    no_faults,
    progress,
    provider_id_changes,
    snapshot_of,
    without_content,
)
from receiver.domain.outputs import has_output
from receiver.domain.revisions import (
    WITHOUT_RESULT,
    completed_by,
    final_revision,
    has_result,
    is_end,
    is_final,
    revision_of,
)
from receiver.domain.schedules import later_look
from receiver.domain.task_state import TaskState
from receiver.domain.updates import ProviderUpdate, Source

UNPROVEN_ENDS = frozenset({"submission_unknown", "provider_lost_task", "timed_out", "internal_error"})
"""The error codes of ends that follow from what the provider did not say: they may be wrong."""
_MAY_BE_AT_PROVIDER = frozenset({Submission.SENDING, Submission.UNKNOWN, Submission.ACCEPTED})
_MADE_AFTER_ALL = "the provider had made this task, and charges for it, although its create call was reported as failed"
_COMPLETED_AFTER_ALL = "the provider completed this task, and charges for it, after Ringback had reported it as failed"
"""What the event of a correction says about the money, if the failure was Ringback's own conclusion."""


def end(task: TaskState, update: ProviderUpdate, now: datetime) -> Decision:
    """Return what changes when `update` ends a task, or corrects its end."""
    status = update.status
    assert status is not None  # noqa: S101 - `transitions.decide` has checked it
    changes = {
        **provider_id_changes(task, update),
        **(content(update) if has_content(update) else {}),
        **no_faults(task),
        "status": status,
        "error": None if status == TaskStatus.COMPLETED else update.error,
        "progress": progress(task, update, status),
        "ended_at": update.ended_at or now,
        "updated_at": now,
        "last_update_at": now,
        "due_at": None,
    }
    if _is_looked_at_again(task, update):
        changes |= {"due_at": later_look(0, now, now), "poll_count": 0}
    if update.by_provider:
        # The events have them; in the row they would depend on which updates arrived before the end.
        changes["words"] = None
    if has_content(update):
        changes["revision"] = final_revision(update)
    if update.source == Source.SUBMIT and status == TaskStatus.FAILED and update.provider_task_id is None:
        changes["submission"] = Submission.REFUSED
    snapshot = snapshot_of(task, update, status) | {
        "submission": changes.get("submission", task.submission),
        "ended_at": changes["ended_at"],
    }
    if task.status in TERMINAL:
        snapshot["corrects"] = task.ended_event
        if not is_end(task.revision):  # the end that is corrected was Ringback's own
            snapshot["note"] = _MADE_AFTER_ALL if task.provider_task_id is None else _COMPLETED_AFTER_ALL
    if status != TaskStatus.COMPLETED:
        return Decision(changes, ENDING[status], snapshot, keeps_content=not has_content(update))
    if changes["revision"] == WITHOUT_RESULT and has_result(task.revision):
        del changes["output"]
        changes["revision"] = completed_by(task.revision)
    return _completed(changes, snapshot, is_final=is_final(changes["revision"]))


def late_result(task: TaskState, update: ProviderUpdate, now: datetime) -> Decision | None:
    """Return what the result of `update` changes on a task that completed without its final result, else None."""
    if not is_end(task.revision) or is_final(task.revision) or not has_output(update.output):
        return None
    is_complete = update.status == TaskStatus.COMPLETED
    new_revision = final_revision(update) if is_complete else completed_by(revision_of(update))
    if new_revision <= task.revision:
        return None
    changes = {
        **(content(update) if is_complete else {"output": update.output}),
        "error": None,
        "progress": 100,
        "revision": new_revision,
        "ended_at": (is_complete and update.ended_at) or task.ended_at,
        "updated_at": now,
        "last_update_at": now,
    }
    snapshot = snapshot_of(task, update, TaskStatus.COMPLETED) | {
        "ended_at": changes["ended_at"],
        "corrects": task.ended_event,
    }
    snapshot.pop("error", None)
    return _completed(changes, snapshot, is_final=is_complete)


def _completed(changes: dict[str, Any], snapshot: dict[str, Any], *, is_final: bool) -> Decision:
    """Return the decision of a completion; its event has a copy of the content only while that is not final."""
    snapshot = without_content(snapshot)
    if not is_final:
        snapshot["output"] = changes.get("output")
    return Decision(changes, EventType.TASK_COMPLETED, snapshot, keeps_content=not is_final)


def _is_looked_at_again(task: TaskState, update: ProviderUpdate) -> bool:
    """Return whether a task that ends is looked at again later: by our own decision, when the provider may have it."""
    code = (update.error or {}).get("code")
    # A number is the status (500) of a create call that the provider's complete list does not have.
    is_unproven = code in UNPROVEN_ENDS or isinstance(code, int)
    return not update.by_provider and is_unproven and task.submission in _MAY_BE_AT_PROVIDER
