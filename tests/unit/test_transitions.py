"""What an update does to a task, by example. `test_transitions_properties` checks it for generated histories."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from models import TERMINAL, EventType, ReceiptReason, Submission, TaskStatus
from receiver.domain.decisions import NOTHING, Decision
from receiver.domain.revisions import revision
from receiver.domain.schedules import PollSchedule
from receiver.domain.task_state import TaskState
from receiver.domain.transitions import ALLOWED, decide
from receiver.domain.updates import ProviderUpdate, Source

Q, S, P, R = TaskStatus.QUEUED, TaskStatus.STAGED, TaskStatus.PENDING, TaskStatus.PROCESSING
C, F, X = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SCHEDULE = PollSchedule(first=15, longest=300, timeout=86400)
ERROR = {"code": 10000, "message": "it broke", "raw_message": "it broke", "detail": None}


def task_state(status: TaskStatus = R, **fields: Any) -> TaskState:
    running = status not in TERMINAL and status != Q
    state = TaskState(
        id=1,
        uid="0198a0a0-0000-7000-8000-000000000001",
        organization_id=1,
        status=status,
        submission=Submission.WAITING if status == Q else Submission.ACCEPTED,
        attempt=1,
        max_attempts=1,
        backoff_seconds=2.0,
        provider_task_id=None if status == Q else "pt-1",
        progress=0,
        revision=revision(status, 0, None, None) if running else "",
        words=None,
        callback_id=None,
        ended_event="the-end" if status in TERMINAL else None,
        poll_count=3,
        last_update_at=NOW - timedelta(seconds=60),
    )
    return replace(state, **fields)


def reported(status: TaskStatus | None, source: Source = Source.WEBHOOK, **fields: Any) -> ProviderUpdate:
    return ProviderUpdate(**{"source": source, "status": status, "provider_task_id": "pt-1", **fields})


def concluded(status: TaskStatus = F) -> ProviderUpdate:
    return ProviderUpdate(source=Source.POLL, status=status, error=ERROR, by_provider=False, retryable=False)


def decided(task: TaskState, update: ProviderUpdate, now: datetime = NOW) -> Decision:
    return decide(task, update, now=now, schedule=SCHEDULE)


def seconds_until_due(decision: Decision) -> float:
    return float((decision.changes["due_at"] - NOW).total_seconds())


@pytest.mark.parametrize(("before", "to"), [(Q, S), (Q, P), (Q, R), (S, P), (S, R), (P, R)])
def test_a_task_moves_forward(before: TaskStatus, to: TaskStatus) -> None:
    decision = decided(task_state(before), reported(to))
    assert decision.changes["status"] == to
    assert decision.event == (EventType.TASK_SUBMITTED if before == Q else EventType.TASK_UPDATED)
    assert decision.snapshot["status"] == to


@pytest.mark.parametrize(("before", "to"), [(S, S), (P, S), (P, P), (R, S), (R, P), (R, R)])
def test_a_task_never_moves_back(before: TaskStatus, to: TaskStatus) -> None:
    assert decided(task_state(before), reported(to)) == NOTHING


@pytest.mark.parametrize("before", [Q, S, P, R])
@pytest.mark.parametrize(
    ("end", "event"), [(C, EventType.TASK_COMPLETED), (F, EventType.TASK_FAILED), (X, EventType.TASK_CANCELLED)]
)
def test_a_task_may_end_from_any_state(before: TaskStatus, end: TaskStatus, event: EventType) -> None:
    decision = decided(task_state(before), reported(end))
    assert (decision.changes["status"], decision.event, decision.changes["due_at"]) == (end, event, None)
    assert decision.changes["ended_at"] == NOW


@pytest.mark.parametrize("end", sorted(TERMINAL))
@pytest.mark.parametrize("reported_status", [None, S, P, R, C, F, X])
def test_the_first_terminal_state_stands(end: TaskStatus, reported_status: TaskStatus | None) -> None:
    decision = decided(task_state(end), reported(reported_status))
    if reported_status in ALLOWED[end]:
        assert (end, reported_status) == (F, C)
    elif reported_status in TERMINAL and reported_status != end:
        assert decision.receipt == ReceiptReason.CONFLICTING
        assert (decision.changes, decision.event) == ({}, None)
    else:
        assert (decision.event, decision.receipt, decision.changes.get("status")) == (None, None, None)


def test_a_failure_is_corrected_and_the_event_names_the_event_it_corrects() -> None:
    decision = decided(task_state(F), reported(C, output={"image_url": "https://x/1.png"}))
    assert decision.event == EventType.TASK_COMPLETED
    assert decision.snapshot["corrects"] == "the-end"
    assert decision.changes["error"] is None
    assert decision.changes["output"] == {"image_url": "https://x/1.png"}
    assert decision.changes["due_at"] is None


@pytest.mark.parametrize("end", sorted(TERMINAL))
@pytest.mark.parametrize("conclusion", [C, F, X])
def test_a_conclusion_of_ringback_never_changes_an_ended_task(end: TaskStatus, conclusion: TaskStatus) -> None:
    assert decided(task_state(end), concluded(conclusion)) == NOTHING


def test_a_conclusion_of_ringback_ends_a_running_task() -> None:
    decision = decided(task_state(R), concluded())
    assert (decision.changes["status"], decision.event) == (F, EventType.TASK_FAILED)
    assert decision.changes["error"] == ERROR


def test_a_conclusion_of_ringback_keeps_the_content_of_the_provider() -> None:
    changes = decided(task_state(R, progress=50), concluded()).changes
    assert not {"output", "logs", "meta", "detail"} & changes.keys()


@pytest.mark.parametrize(
    ("status", "submission", "is_cancelled"),
    [
        (Q, Submission.WAITING, True),
        (Q, Submission.SENDING, False),
        (Q, Submission.UNKNOWN, False),
        (P, Submission.ACCEPTED, False),
        (R, Submission.ACCEPTED, False),
    ],
)
def test_ringback_itself_cancels_only_a_task_that_was_never_sent(
    status: TaskStatus, submission: Submission, is_cancelled: bool
) -> None:
    decision = decided(task_state(status, submission=submission), concluded(X))
    assert (decision.event == EventType.TASK_CANCELLED) is is_cancelled
    assert bool(decision.changes) is is_cancelled


@pytest.mark.parametrize("newer", [{"progress": 41}, {"logs": ["a", "b"]}, {"output": {"image_url": "u"}}])
def test_newer_content_of_the_same_state_is_an_update(newer: dict[str, Any]) -> None:
    known: dict[str, Any] = {"progress": 40, "logs": ["a"], "output": {"percent": ""}}
    task = task_state(R, progress=40, revision=revision(R, 40, ["a"], {"percent": ""}))
    assert decided(task, reported(R, **known)) == NOTHING
    decision = decided(task, reported(R, **{**known, **newer}))
    assert decision.event == EventType.TASK_UPDATED
    assert {name: decision.changes[name] for name in known} == {**known, **newer}


@pytest.mark.parametrize("older", [{"progress": 39}, {"logs": []}, {"output": None}])
def test_older_content_of_the_same_state_changes_nothing(older: dict[str, Any]) -> None:
    known: dict[str, Any] = {"progress": 40, "logs": ["a"], "output": {"image_url": "u"}}
    task = task_state(R, progress=40, revision=revision(R, 40, ["a"], {"image_url": "u"}))
    assert decided(task, reported(R, **{**known, **older})) == NOTHING


def test_a_completed_task_has_all_content_and_its_event_no_copy_of_the_output() -> None:
    output, logs = {"image_url": "u"}, ["done"]
    decision = decided(task_state(R), reported(C, output=output, logs=logs, error=ERROR, progress=3))
    content = {"output": output, "logs": logs, "progress": 100, "error": None}
    assert {name: decision.changes[name] for name in content} == content
    assert not {"output", "logs"} & decision.snapshot.keys()
    assert decision.snapshot["progress"] == 100


def test_a_failed_task_and_its_event_have_the_same_content() -> None:
    decision = decided(
        task_state(R, progress=50), reported(F, error=ERROR, output={"percent": 20}, logs=["no"], progress=20)
    )
    for name in ("error", "output", "logs", "progress"):
        assert decision.snapshot[name] == decision.changes[name], name


def test_ended_at_is_the_time_that_the_provider_reports() -> None:
    ended_at = NOW - timedelta(seconds=9)
    assert decided(task_state(R), reported(C, ended_at=ended_at)).changes["ended_at"] == ended_at


def test_an_unknown_status_word_changes_no_state_and_has_one_event() -> None:
    first = decided(task_state(R), reported(None, word="dreaming"))
    assert (first.event, first.changes["words"]) == (EventType.TASK_UPDATED, ["dreaming"])
    assert first.snapshot["provider_status"] == "dreaming"
    assert "status" not in first.changes
    assert decided(task_state(R, words=["dreaming"]), reported(None, word="dreaming")) == NOTHING


def test_the_number_of_unknown_words_is_limited() -> None:
    task = task_state(R, words=[f"word-{number}" for number in range(8)])
    assert decided(task, reported(None, word="one too many")) == NOTHING


def test_an_update_with_an_unknown_word_still_identifies_a_task() -> None:
    decision = decided(task_state(Q, submission=Submission.SENDING), reported(None, word="dreaming"))
    assert decision.changes["provider_task_id"] == "pt-1"
    assert decision.changes["submission"] == Submission.ACCEPTED


@pytest.mark.parametrize(
    "first", [reported(P, Source.SUBMIT), reported(R), reported(C), reported(F), reported(R, Source.POLL)]
)
def test_the_first_update_of_any_source_records_the_provider_task_id(first: ProviderUpdate) -> None:
    for submission in (Submission.SENDING, Submission.UNKNOWN):
        changes = decided(task_state(Q, submission=submission), first).changes
        assert (changes["provider_task_id"], changes["submission"]) == ("pt-1", Submission.ACCEPTED)


def test_a_create_response_after_the_webhook_changes_nothing() -> None:
    assert decided(task_state(R), reported(P, Source.SUBMIT, attempt=1)) == NOTHING


def test_a_refused_submission_is_recorded_as_refused() -> None:
    refusal = reported(F, Source.SUBMIT, provider_task_id=None, error=ERROR, retryable=False, attempt=1)
    decision = decided(task_state(Q, submission=Submission.SENDING, max_attempts=5), refusal)
    assert (decision.changes["status"], decision.changes["submission"]) == (F, Submission.REFUSED)
    assert (decision.event, decision.changes["error"]) == (EventType.TASK_FAILED, ERROR)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ((P, 99, ["a"], {"a": 1}), (R, 0, None, None)),
        ((R, 9, None, None), (R, 10, None, None)),
        ((R, 99, None, None), (R, 100, None, None)),
        ((R, 1, ["a"] * 9, None), (R, 1, ["a"] * 10, None)),
        ((R, 1, ["a"], {"a": 1}), (R, 1, ["a"], {"a": 1, "b": [2, 3]})),
    ],
)
def test_the_order_of_snapshots_is_state_progress_logs_output(older: Any, newer: Any) -> None:
    assert "" < revision(*older) < revision(*newer)


def test_different_content_of_equal_amount_has_different_revisions() -> None:
    assert revision(R, 1, ["a"], None) != revision(R, 1, ["b"], None)
    assert revision(R, 1, None, {"a": 1, "b": 2}) == revision(R, 1, None, {"b": 2, "a": 1})
