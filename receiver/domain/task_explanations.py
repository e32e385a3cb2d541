"""Why a task is in its state, and what happens to it next. Pure functions of its row and of a few facts.

They say what `receiver.tracking` would do. Of a task that a process acts on at this moment (a lease that has not run
out) the next act is under way, so its time is now, or it waits for its turn at the provider.
"""

from datetime import datetime, timedelta

from msgspec import Struct

from models import TERMINAL, Submission, TaskStatus
from receiver.domain.create_calls import failed_status, searched_until
from receiver.domain.ends import UNPROVEN_ENDS
from receiver.domain.explanations import Act, Blocker, Explanation, NextAct, words_of
from receiver.domain.representations import Fields
from receiver.domain.revisions import is_end, is_final
from receiver.domain.schedules import PollSchedule
from receiver.domain.transitions import ALLOWED, RETRYABLE

_NOT_PAUSED = 1.0
"""While a provider's pause has at most this many seconds left, its tasks are acted on: their calls wait for its end."""


class TaskFacts(Struct, frozen=True, kw_only=True):
    """What an explanation of a task needs besides its row.

    `unknown_seconds` and `failed_seconds` are how long a lost create call is searched for, `missing_polls` how many
    answers "not found" are believed, `calls_per_second` the provider's limit, `paused_seconds` the rest of the pause
    that it asked for, `output_seconds` how long it keeps outputs, None if that is not known. `queued_before` counts the
    tasks of the same send queue that are before it, and `waits_for` is the id of a task that its input names and that
    the provider does not know yet.
    """

    now: datetime
    schedule: PollSchedule
    unknown_seconds: float
    failed_seconds: float
    missing_polls: int
    calls_per_second: float
    has_public_url: bool = True
    paused_seconds: float = 0.0
    key_refusal: str | None = None
    output_seconds: float | None = None
    queued_before: int = 0
    waits_for: str | None = None


Open = tuple[str, NextAct, list[Blocker]]
"""The reason, the next act and what it waits for, of a task that has not ended."""


def explain_task(task: Fields, facts: TaskFacts) -> Explanation:
    """Return why a task is in its state; `task` is its row, of which no document but `error` is needed."""
    if task["status"] in TERMINAL:
        return _ended(task, facts)
    reason, act, blocked_by = _open(task, facts)
    if task["exception_count"]:
        count = task["exception_count"]
        text = f"acting on it raised an exception {count} times in a row; the service's log has the details"
        blocked_by = [*blocked_by, Blocker("exception", text, {"count": count})]
    return Explanation(
        status=task["status"],
        reason=reason,
        next=act,
        blocked_by=blocked_by,
        may=_may(task),
        facts=_facts(task, facts),
    )


def is_held(row: Fields, now: datetime) -> bool:
    """Return whether a process holds a row's lease."""
    return bool(row["leased"] and row["due_at"] is not None and row["due_at"] > now)


def _open(task: Fields, facts: TaskFacts) -> Open:
    if task["due_at"] is None:
        text = "it has no time at which it is looked at; `ringback report` lists such tasks"
        return "it has not ended", NextAct(Act.NONE, None, text), [Blocker("not_due", text)]
    if task["cancel_requested_at"] is not None:
        return _recalled(task, facts)
    match task["submission"]:
        case Submission.WAITING:
            return _unsent(task, facts)
        case Submission.SENDING if is_held(task, facts.now):
            return _sending(task)
        case Submission.SENDING | Submission.UNKNOWN if task["provider_task_id"] is None:
            return _unknown(task, facts)
        case _:
            return _at_provider(task, facts)


def _unsent(task: Fields, facts: TaskFacts) -> Open:
    tries, attempt = task["poll_count"], task["attempt"]
    is_backoff = attempt > 1 and task["error"] is not None
    act = Act.RETRY if attempt > 1 else Act.SUBMIT
    if tries:
        reason = f"it waits to be sent again: sending it was put off {tries} times, and the provider has nothing of it"
    elif is_backoff:
        reason = f"attempt {attempt - 1} of {task['max_attempts']} failed ({words_of(task['error'])})"
    elif attempt > 1:
        reason = f"attempt {attempt} was requested, and waits to be sent"
    else:
        reason = "it waits to be sent to the provider"
    blocked_by = _provider_blockers(facts)
    if is_held(task, facts.now):
        blocked_by.append(_budget(facts))
        at = None if facts.paused_seconds <= _NOT_PAUSED else _not_before(facts.now, facts)
        return reason, NextAct(act, at, "it is sent when its turn under the provider's limit has come"), blocked_by
    if facts.waits_for is not None:
        text = f"its input names task {facts.waits_for}, which the provider does not know yet"
        blocked_by.append(Blocker("referenced_task", text, {"task_id": facts.waits_for}))
    if task["due_at"] > facts.now:
        what = "resend_delay" if tries else "retry_backoff"
        text = "the wait before the next try" if tries else "the backoff before the next attempt"
        blocked_by.append(Blocker(what, text, {"until": task["due_at"], "tries": tries}))
    else:
        text = f"{facts.queued_before} tasks that are due are sent before it, in turn with other organizations' tasks"
        blocked_by.append(Blocker("send_queue", text, {"before": facts.queued_before}))
        blocked_by.append(_budget(facts))
    return reason, NextAct(act, _not_before(task["due_at"], facts), f"attempt {attempt} is sent"), blocked_by


def _sending(task: Fields) -> Open:
    text = "its create call is under way, and its answer is waited for"
    blocker = Blocker("create_call", text, {"since": task["submitted_at"], "until": task["due_at"]})
    then = "the answer is written; if none has come by then, the provider's list is searched for it"
    return "it is being sent to the provider", NextAct(Act.AWAIT_ANSWER, task["due_at"], then), [blocker]


def _unknown(task: Fields, facts: TaskFacts) -> Open:
    status = failed_status(task["error"])
    what = "it has no known answer" if status is None else f"the provider answered it with HTTP {status}"
    reason = f"its create call was made, and {what}, so it is not known whether the provider has it"
    text = "it is never sent again, for that could be paid for twice: a webhook or the provider's list has to prove it"
    at = _not_before(task["due_at"], facts, is_held=is_held(task, facts.now))
    until = _search_end(task, facts, at)
    details = {"complete_looks": task["missing_count"], "not_given_up_before": until}
    blocked_by = [Blocker("submission_unknown", text, details), *_provider_blockers(facts)]
    ends = "it fails with submission_unknown" if status is None else "this attempt failed"
    is_last = until is not None and at >= until
    said = f"the provider's list is searched for it; if that is complete and does not have it, {ends}"
    if not is_last:
        said = "the provider's list is searched for it, and again later if it is not there"
    return reason, NextAct(Act.GIVE_UP if is_last else Act.SEARCH, at, said), blocked_by


def _at_provider(task: Fields, facts: TaskFacts) -> Open:
    said = "it is queued there" if task["status"] == TaskStatus.QUEUED else f"its last word was {task['status']}"
    reason = f"the provider has it, and {said}"
    how = "a webhook of the provider's, or a poll" if facts.has_public_url else "a poll: RINGBACK_PUBLIC_URL is not set"
    blocked_by = [Blocker("provider", f"the provider works on it; news come by {how}"), *_provider_blockers(facts)]
    if task["missing_count"]:
        count = task["missing_count"]
        text = f"the provider said {count} times in a row that it has no such task; {facts.missing_polls} are believed"
        blocked_by.append(Blocker("missing_at_provider", text, {"count": count, "since": task["missing_since"]}))
    if task["words"]:
        text = "the provider's status is a word that Ringback does not know"
        blocked_by.append(Blocker("unknown_status", text, {"words": task["words"]}))
    at = _not_before(task["due_at"], facts, is_held=is_held(task, facts.now))
    if at >= min(facts.schedule.deadline(task["last_update_at"]), _limit_of(task, facts)):
        text = "the provider is asked about it once more, and it fails with timed_out if there is no news"
        return reason, NextAct(Act.GIVE_UP, at, text), blocked_by
    return reason, NextAct(Act.POLL, at, "the provider is asked about it, unless a webhook comes first"), blocked_by


def _recalled(task: Fields, facts: TaskFacts) -> Open:
    reason = "its run was cancelled, and the provider is asked to cancel it"
    at = _not_before(task["due_at"], facts, is_held=is_held(task, facts.now))
    blocker = Blocker("recall", "the provider has not agreed or refused yet", {"since": task["cancel_requested_at"]})
    if task["provider_task_id"] is not None:
        text = "the provider is asked to cancel it; if it refuses, the task runs to its end"
        return reason, NextAct(Act.RECALL, at, text), [blocker, *_provider_blockers(facts)]
    if task["submission"] == Submission.WAITING:
        return (
            reason,
            NextAct(Act.CANCEL, max(task["due_at"], facts.now), "it is cancelled: the provider has nothing of it"),
            [],
        )
    _, act, blocked_by = _sending(task) if is_held(task, facts.now) else _unknown(task, facts)
    return reason, act, [blocker, *blocked_by]


def _ended(task: Fields, facts: TaskFacts) -> Explanation:
    ends, code = task["status"], (task["error"] or {}).get("code")
    corrections = ["completed"] if TaskStatus.COMPLETED in ALLOWED[ends] else []
    if ends == TaskStatus.COMPLETED:
        reason = "the provider completed it"
        if is_end(task["revision"]) and not is_final(task["revision"]):
            reason, corrections = "the provider completed it, and its final result may still come", ["result"]
    elif ends == TaskStatus.CANCELLED:
        where = "before it was sent to the provider" if task["provider_task_id"] is None else "at the provider"
        reason = f"it was cancelled {where}" + (", with its run" if task["cancel_requested_at"] is not None else "")
    else:
        whose = "Ringback gave it up without the provider's word" if code in UNPROVEN_ENDS else "it failed"
        reason = f"{whose} ({words_of(task['error'])})"
    act = NextAct(Act.NONE, None, "nothing: it has ended")
    if task["due_at"] is not None:
        at = _not_before(task["due_at"], facts, is_held=is_held(task, facts.now))
        act = NextAct(Act.LOOK_AGAIN, at, "the provider is asked once more, for this end may be wrong")
    return Explanation(
        status=ends,
        reason=reason,
        next=act,
        blocked_by=_provider_blockers(facts) if task["due_at"] is not None else (),
        may=_may(task),
        facts={
            **_facts(task, facts),
            "corrections": corrections,
            "outputs_expire_at": _outputs_end(task, facts) if ends == TaskStatus.COMPLETED else None,
        },
    )


def _may(task: Fields) -> list[str]:
    """Return what the client may do with a task; the provider may still refuse it."""
    is_known = task["provider_task_id"] is not None
    may = []
    if task["status"] in TERMINAL:
        if task["status"] in RETRYABLE and task["run_uid"] is None:
            may.append("retry")
    elif is_known or task["submission"] == Submission.WAITING:
        may.append("cancel")
    if is_known or task["submission"] in (Submission.SENDING, Submission.UNKNOWN):
        may.append("refresh")
    return may


def _facts(task: Fields, facts: TaskFacts) -> dict[str, object]:
    is_open = task["status"] not in TERMINAL
    is_waited_for = is_open and task["provider_task_id"] is not None
    names = ("attempt", "max_attempts", "submission", "provider_task_id", "poll_count", "submitted_at")
    return {
        **{name: task[name] for name in (*names, "last_update_at", "updated_at", "ended_at")},
        "is_acted_on": is_held(task, facts.now),
        "times_out_at": facts.schedule.deadline(task["last_update_at"]) if is_waited_for else None,
        "must_change_until": _limit_of(task, facts) if is_open else None,
        "provider_calls_per_second": facts.calls_per_second,
    }


def _provider_blockers(facts: TaskFacts) -> list[Blocker]:
    found = []
    if facts.paused_seconds > 0:
        text = f"the provider asked for a pause, of which {facts.paused_seconds:.0f} s are left"
        found.append(Blocker("provider_paused", text, {"until": _pause_end(facts)}))
    if facts.key_refusal is not None:
        found.append(Blocker("provider_unauthorized", "the provider refuses Ringback's own key"))
    return found


def _budget(facts: TaskFacts) -> Blocker:
    text = f"calls to the provider are limited to {facts.calls_per_second:g} a second, and organizations take turns"
    return Blocker("provider_budget", text, {"calls_per_second": facts.calls_per_second})


def _not_before(due_at: datetime, facts: TaskFacts, *, is_held: bool = False) -> datetime:
    """Return when a due task is acted on at the earliest: now if it is `is_held`, and not in the provider's pause."""
    return max(facts.now if is_held else max(due_at, facts.now), _pause_end(facts))


def _pause_end(facts: TaskFacts) -> datetime:
    return facts.now + timedelta(seconds=facts.paused_seconds)


def _outputs_end(task: Fields, facts: TaskFacts) -> datetime | None:
    """Return when the provider deletes the outputs of a completed task; None if that is not known."""
    if facts.output_seconds is None or task["ended_at"] is None:
        return None
    end: datetime = task["ended_at"] + timedelta(seconds=facts.output_seconds)
    return end


def _limit_of(task: Fields, facts: TaskFacts) -> datetime:
    limit: datetime = task["updated_at"] + timedelta(seconds=facts.schedule.limit)
    return limit


def _search_end(task: Fields, facts: TaskFacts, at: datetime) -> datetime | None:
    """Return before when a look `at` that time gives no lost create call up; None if the call's begin is not known."""
    if task["submitted_at"] is None:
        return None
    seconds = facts.unknown_seconds if failed_status(task["error"]) is None else facts.failed_seconds
    looks = (task["missing_count"] + 1, task["missing_since"] or at)
    return searched_until(task["submitted_at"], task["error"], seconds, looks, at)
