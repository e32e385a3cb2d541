"""What an update does to a task, by example. By property: `test_transitions_properties`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models import TERMINAL, EventType, ReceiptReason, Submission, TaskStatus
from receiver.domain.transitions import ALLOWED, NOTHING, Decision, PollSchedule, TaskState, decide, revision
from receiver.domain.updates import ProviderUpdate, Source

Q, S, P, R = TaskStatus.QUEUED, TaskStatus.STAGED, TaskStatus.PENDING, TaskStatus.PROCESSING
C, F, X = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LOOKS = PollSchedule(first=15, longest=300, timeout=86400)
ERROR = {"code": 10000, "message": "it broke", "raw_message": "it broke", "detail": None}


def a_task(status: TaskStatus = R, **fields: Any) -> TaskState:
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


def heard(status: TaskStatus | None, source: Source = Source.WEBHOOK, **fields: Any) -> ProviderUpdate:
    return ProviderUpdate(**{"source": source, "status": status, "provider_task_id": "pt-1", **fields})


def ours(status: TaskStatus = F) -> ProviderUpdate:
    return ProviderUpdate(source=Source.POLL, status=status, error=ERROR, by_provider=False, retryable=False)


def decided(task: TaskState, update: ProviderUpdate, now: datetime = NOW) -> Decision:
    return decide(task, update, now=now, schedule=LOOKS)


def seconds_to_the_look(decision: Decision) -> float:
    return float((decision.changes["due_at"] - NOW).total_seconds())


@pytest.mark.parametrize(("came_from", "to"), [(Q, S), (Q, P), (Q, R), (S, P), (S, R), (P, R)])
def test_a_task_goes_forward(came_from: TaskStatus, to: TaskStatus) -> None:
    decision = decided(a_task(came_from), heard(to))
    assert decision.changes["status"] == to
    assert decision.event == (EventType.TASK_SUBMITTED if came_from == Q else EventType.TASK_UPDATED)
    assert decision.snapshot["status"] == to


@pytest.mark.parametrize(("came_from", "to"), [(S, S), (P, S), (P, P), (R, S), (R, P), (R, R)])
def test_a_task_never_goes_back(came_from: TaskStatus, to: TaskStatus) -> None:
    assert decided(a_task(came_from), heard(to)) == NOTHING


@pytest.mark.parametrize("came_from", [Q, S, P, R])
@pytest.mark.parametrize(
    ("end", "event"), [(C, EventType.TASK_COMPLETED), (F, EventType.TASK_FAILED), (X, EventType.TASK_CANCELLED)]
)
def test_a_task_may_end_from_any_state(came_from: TaskStatus, end: TaskStatus, event: EventType) -> None:
    decision = decided(a_task(came_from), heard(end))
    assert (decision.changes["status"], decision.event, decision.changes["due_at"]) == (end, event, None)
    assert decision.changes["ended_at"] == NOW


@pytest.mark.parametrize("end", sorted(TERMINAL))
@pytest.mark.parametrize("said", [None, S, P, R, C, F, X])
def test_the_first_terminal_state_stands(end: TaskStatus, said: TaskStatus | None) -> None:
    decision = decided(a_task(end), heard(said))
    if said in ALLOWED[end]:
        assert (end, said) == (F, C)
    elif said in TERMINAL and said != end:
        assert decision.receipt == ReceiptReason.CONFLICTING
        assert (decision.changes, decision.event) == ({}, None)
    else:
        assert (decision.event, decision.receipt, decision.changes.get("status")) == (None, None, None)


def test_a_failure_that_was_none_is_corrected_and_the_event_names_the_one_it_corrects() -> None:
    decision = decided(a_task(F), heard(C, output={"image_url": "https://x/1.png"}))
    assert decision.event == EventType.TASK_COMPLETED
    assert decision.snapshot["corrects"] == "the-end"
    assert decision.changes["error"] is None
    assert decision.changes["output"] == {"image_url": "https://x/1.png"}
    assert decision.changes["due_at"] is None


@pytest.mark.parametrize("end", sorted(TERMINAL))
@pytest.mark.parametrize("conclusion", [C, F, X])
def test_our_own_verdict_never_overturns_an_end(end: TaskStatus, conclusion: TaskStatus) -> None:
    assert decided(a_task(end), ours(conclusion)) == NOTHING


def test_our_own_verdict_ends_a_task_that_runs() -> None:
    decision = decided(a_task(R), ours())
    assert (decision.changes["status"], decision.event) == (F, EventType.TASK_FAILED)
    assert decision.changes["error"] == ERROR


def test_our_own_verdict_keeps_what_the_provider_told() -> None:
    changes = decided(a_task(R, progress=50), ours()).changes
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
def test_we_cancel_by_ourselves_only_what_was_never_sent(
    status: TaskStatus, submission: Submission, is_cancelled: bool
) -> None:
    decision = decided(a_task(status, submission=submission), ours(X))
    assert (decision.event == EventType.TASK_CANCELLED) is is_cancelled
    assert bool(decision.changes) is is_cancelled


@pytest.mark.parametrize("newer", [{"progress": 41}, {"logs": ["a", "b"]}, {"output": {"image_url": "u"}}])
def test_newer_content_of_the_same_state_is_an_update(newer: dict[str, Any]) -> None:
    known: dict[str, Any] = {"progress": 40, "logs": ["a"], "output": {"percent": ""}}
    task = a_task(R, progress=40, revision=revision(R, 40, ["a"], {"percent": ""}))
    assert decided(task, heard(R, **known)) == NOTHING
    decision = decided(task, heard(R, **{**known, **newer}))
    assert decision.event == EventType.TASK_UPDATED
    assert {name: decision.changes[name] for name in known} == {**known, **newer}


@pytest.mark.parametrize("older", [{"progress": 39}, {"logs": []}, {"output": None}])
def test_older_content_of_the_same_state_changes_nothing(older: dict[str, Any]) -> None:
    known: dict[str, Any] = {"progress": 40, "logs": ["a"], "output": {"image_url": "u"}}
    task = a_task(R, progress=40, revision=revision(R, 40, ["a"], {"image_url": "u"}))
    assert decided(task, heard(R, **{**known, **older})) == NOTHING


def test_a_completed_task_is_whole_and_its_event_holds_no_second_copy_of_the_output() -> None:
    output, logs = {"image_url": "u"}, ["done"]
    decision = decided(a_task(R), heard(C, output=output, logs=logs, error=ERROR, progress=3))
    told = {"output": output, "logs": logs, "progress": 100, "error": None}
    assert {name: decision.changes[name] for name in told} == told
    assert not {"output", "logs"} & decision.snapshot.keys()
    assert decision.snapshot["progress"] == 100


def test_a_failed_task_and_its_event_say_the_same() -> None:
    decision = decided(a_task(R, progress=50), heard(F, error=ERROR, output={"percent": 20}, logs=["no"], progress=20))
    for name in ("error", "output", "logs", "progress"):
        assert decision.snapshot[name] == decision.changes[name], name


def test_an_end_keeps_the_providers_own_time() -> None:
    ended_at = NOW - timedelta(seconds=9)
    assert decided(a_task(R), heard(C, ended_at=ended_at)).changes["ended_at"] == ended_at


def test_an_unknown_word_moves_nothing_and_is_told_once() -> None:
    first = decided(a_task(R), heard(None, word="dreaming"))
    assert (first.event, first.changes["words"]) == (EventType.TASK_UPDATED, ["dreaming"])
    assert first.snapshot["provider_status"] == "dreaming"
    assert "status" not in first.changes
    assert decided(a_task(R, words=["dreaming"]), heard(None, word="dreaming")) == NOTHING


def test_unknown_words_are_bounded() -> None:
    task = a_task(R, words=[f"word-{number}" for number in range(8)])
    assert decided(task, heard(None, word="one too many")) == NOTHING


def test_an_unknown_word_identifies_a_task_all_the_same() -> None:
    decision = decided(a_task(Q, submission=Submission.SENDING), heard(None, word="dreaming"))
    assert decision.changes["provider_task_id"] == "pt-1"
    assert decision.changes["submission"] == Submission.ACCEPTED


@pytest.mark.parametrize("first", [heard(P, Source.SUBMIT), heard(R), heard(C), heard(F), heard(R, Source.POLL)])
def test_whoever_comes_first_brings_the_providers_id(first: ProviderUpdate) -> None:
    for submission in (Submission.SENDING, Submission.UNKNOWN):
        changes = decided(a_task(Q, submission=submission), first).changes
        assert (changes["provider_task_id"], changes["submission"]) == ("pt-1", Submission.ACCEPTED)


def test_a_create_answer_after_the_webhook_changes_nothing() -> None:
    assert decided(a_task(R), heard(P, Source.SUBMIT, attempt=1)) == NOTHING


def test_a_refused_submission_is_marked_as_such() -> None:
    refusal = heard(F, Source.SUBMIT, provider_task_id=None, error=ERROR, retryable=False, attempt=1)
    decision = decided(a_task(Q, submission=Submission.SENDING, max_attempts=5), refusal)
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


def test_equal_amounts_of_different_content_are_kept_apart() -> None:
    assert revision(R, 1, ["a"], None) != revision(R, 1, ["b"], None)
    assert revision(R, 1, None, {"a": 1, "b": 2}) == revision(R, 1, None, {"b": 2, "a": 1})
