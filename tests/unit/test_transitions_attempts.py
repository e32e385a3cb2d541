"""Further attempts of a task, and when it is polled."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from models import EventType, ReceiptReason, Submission, TaskStatus
from receiver.domain.decisions import NOTHING
from receiver.domain.schedules import PollSchedule
from receiver.domain.transitions import decide
from receiver.domain.updates import Source
from tests.unit.test_transitions import (
    ERROR,
    NOW,
    SCHEDULE,
    C,
    F,
    P,
    Q,
    R,
    S,
    X,
    concluded,
    decided,
    reported,
    seconds_until_due,
    task_state,
)


@pytest.mark.parametrize("before", [Q, S, P, R])
def test_a_failure_with_attempts_left_goes_back_to_queued(before: TaskStatus) -> None:
    decision = decided(task_state(before, max_attempts=2), reported(F, error=ERROR, attempt=1))
    expected = {
        "status": Q,
        "submission": Submission.WAITING,
        "attempt": 2,
        "provider_task_id": None,
        "progress": 0,
        "revision": "",
        "output": None,
        "error": ERROR,
        "poll_count": 0,
    }
    assert {name: decision.changes[name] for name in expected} == expected
    assert decision.event == EventType.TASK_UPDATED
    assert decision.snapshot["retry_at"] == decision.changes["due_at"]
    assert decision.snapshot["attempt"] == 1


def test_another_attempt_starts_without_the_logs_of_the_previous_one() -> None:
    decision = decided(task_state(R, max_attempts=2), reported(F, error=ERROR, logs=["step 1"]))
    assert decision.changes["logs"] is None


@pytest.mark.parametrize(("attempt", "jitter", "delay"), [(1, 0.5, 2), (2, 0.5, 4), (3, 0.5, 8), (1, 0, 1.6)])
def test_the_backoff_doubles_and_has_jitter(attempt: int, jitter: float, delay: float) -> None:
    task = task_state(R, attempt=attempt, max_attempts=5, backoff_seconds=2.0)
    decision = decide(task, reported(F, attempt=attempt), now=NOW, schedule=SCHEDULE, jitter=jitter)
    assert seconds_until_due(decision) == pytest.approx(delay)


@pytest.mark.parametrize(("attempt", "most"), [(1, 1), (2, 2), (5, 5)])
def test_only_the_last_attempt_fails_the_task(attempt: int, most: int) -> None:
    decision = decided(task_state(R, attempt=attempt, max_attempts=most), reported(F, error=ERROR, attempt=attempt))
    assert (decision.event, decision.changes["status"]) == (EventType.TASK_FAILED, F)
    assert decision.changes["due_at"] is None


@pytest.mark.parametrize("end", [C, X])
def test_a_task_that_did_not_fail_is_not_tried_again(end: TaskStatus) -> None:
    assert decided(task_state(R, max_attempts=5), reported(end)).changes["status"] == end


def test_a_failure_that_another_attempt_would_only_repeat_is_final() -> None:
    assert decided(task_state(R, max_attempts=5), reported(F, retryable=False)).event == EventType.TASK_FAILED
    assert decided(task_state(R, max_attempts=5), concluded()).event == EventType.TASK_FAILED


@pytest.mark.parametrize("reported_status", [None, P, R, C, F, X])
@pytest.mark.parametrize(
    "old",
    [
        {"attempt": 1, "provider_task_id": "pt-1"},
        {"attempt": 1, "provider_task_id": None},
        {"provider_task_id": "pt-1"},
    ],
)
def test_an_update_of_a_superseded_attempt_becomes_a_receipt(
    reported_status: TaskStatus | None, old: dict[str, Any]
) -> None:
    task = task_state(R, attempt=2, max_attempts=3, provider_task_id="pt-2")
    decision = decided(task, reported(reported_status, **{"word": "" if reported_status else "dreaming", **old}))
    assert decision.receipt == ReceiptReason.SUPERSEDED
    assert decision.message
    assert (decision.changes, decision.event) == ({}, None)


def test_a_late_success_of_a_superseded_attempt_does_not_correct_the_failure() -> None:
    task = task_state(F, attempt=2, max_attempts=2, provider_task_id="pt-2")
    assert decided(task, reported(C, attempt=1)).receipt == ReceiptReason.SUPERSEDED


def test_a_poll_without_a_change_is_counted_and_the_next_waits_half_as_long_again() -> None:
    task = task_state(R, poll_count=0, last_update_at=NOW)
    waits = []
    for _ in range(9):
        decision = decided(task, reported(R, Source.POLL))
        assert (decision.event, decision.changes["poll_count"]) == (None, task.poll_count + 1)
        assert decision.changes.keys() == {"poll_count", "due_at"}
        waits.append(seconds_until_due(decision))
        task = task_state(R, poll_count=decision.changes["poll_count"], last_update_at=NOW)
    assert waits[:4] == pytest.approx([22.5, 33.75, 50.625, 75.9375])
    assert waits[-1] == 300


def test_a_poll_is_never_scheduled_after_the_deadline() -> None:
    unknown = reported(None, Source.POLL, word="dreaming")
    task = task_state(R, poll_count=50, words=["dreaming"], last_update_at=NOW - timedelta(seconds=86400 - 7))
    assert seconds_until_due(decided(task, unknown)) == 7
    late = task_state(R, poll_count=50, words=["dreaming"], last_update_at=NOW - timedelta(days=2))
    assert seconds_until_due(decided(late, unknown)) == 0
    short = PollSchedule(first=15, longest=300, timeout=4)
    assert short.after_update(NOW) == NOW + timedelta(seconds=4)


@pytest.mark.parametrize("source", list(Source))
def test_an_update_with_a_change_postpones_the_poll_whatever_its_source(source: Source) -> None:
    for update in (reported(R, source, progress=7), reported(None, source, word="dreaming")):
        changes = decided(task_state(R), update).changes
        assert (changes["poll_count"], changes["last_update_at"]) == (0, NOW)
        assert changes["due_at"] == NOW + timedelta(seconds=15)


@pytest.mark.parametrize("source", [Source.POLL, Source.SUBMIT])
@pytest.mark.parametrize("due_since", [timedelta(0), timedelta(seconds=2)])
def test_the_answer_to_a_call_does_not_postpone_a_look_that_is_due(source: Source, due_since: timedelta) -> None:
    asked = task_state(R, due_at=NOW - due_since, leased=False)
    same = [reported(R, Source.POLL)] if source == Source.POLL else []
    for update in (reported(R, source, progress=7), reported(None, source, word="dreaming"), *same):
        assert decided(asked, update).changes["due_at"] == NOW
        # One that has begun, or is planned, is not a look that was asked for since.
        for task in (replace(asked, leased=True), replace(asked, due_at=NOW + timedelta(seconds=1))):
            assert seconds_until_due(decided(task, update)) > 0


def test_a_webhook_with_the_state_postpones_a_look_that_is_due() -> None:
    asked = task_state(R, due_at=NOW, leased=False)
    assert seconds_until_due(decided(asked, reported(R, progress=7))) == 15


def test_a_webhook_without_a_change_does_not_postpone_the_poll() -> None:
    assert decided(task_state(R), reported(R)) == NOTHING


def test_a_poll_that_is_answered_restarts_the_time_out_though_nothing_changed() -> None:
    task = task_state(R, last_update_at=NOW - timedelta(seconds=86400 - 7))
    decision = decided(task, reported(R, Source.POLL))
    assert (decision.event, decision.changes["last_update_at"]) == (None, NOW)
    assert "updated_at" not in decision.changes


def test_a_poll_that_returns_a_known_word_is_counted() -> None:
    changes = decided(task_state(R, words=["dreaming"]), reported(None, Source.POLL, word="dreaming")).changes
    assert changes.keys() == {"poll_count", "due_at"}


def test_an_old_snapshot_that_identifies_a_submission_counts_as_an_update() -> None:
    task = task_state(R, submission=Submission.UNKNOWN, provider_task_id=None)
    changes = decided(task, reported(P, provider_task_id="pt-1")).changes
    assert changes == {
        "provider_task_id": "pt-1",
        "submission": Submission.ACCEPTED,
        "last_update_at": NOW,
        "poll_count": 0,
        "due_at": NOW + timedelta(seconds=15),
    }


@pytest.mark.parametrize("end", [C, F, X])
def test_a_task_that_has_ended_is_not_polled(end: TaskStatus) -> None:
    assert decided(task_state(R), reported(end)).changes["due_at"] is None
    assert "due_at" not in decided(task_state(end), reported(R, Source.POLL)).changes
