"""Further attempts of a task, and when it is looked at again."""

from datetime import timedelta
from typing import Any

import pytest

from models import EventType, ReceiptReason, Submission, TaskStatus
from receiver.domain.transitions import NOTHING, PollSchedule, decide
from receiver.domain.updates import Source
from tests.unit.test_transitions import (
    ERROR,
    LOOKS,
    NOW,
    C,
    F,
    P,
    Q,
    R,
    S,
    X,
    a_task,
    decided,
    heard,
    ours,
    seconds_to_the_look,
)


@pytest.mark.parametrize("came_from", [Q, S, P, R])
def test_a_failure_with_tries_left_goes_back_to_the_queue(came_from: TaskStatus) -> None:
    decision = decided(a_task(came_from, max_attempts=2), heard(F, error=ERROR, attempt=1))
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


def test_another_attempt_begins_without_the_logs_of_the_one_before() -> None:
    decision = decided(a_task(R, max_attempts=2), heard(F, error=ERROR, logs=["step 1"]))
    assert decision.changes["logs"] is None


@pytest.mark.parametrize(("attempt", "jitter", "delay"), [(1, 0.5, 2), (2, 0.5, 4), (3, 0.5, 8), (1, 0, 1.6)])
def test_the_backoff_doubles_and_is_spread(attempt: int, jitter: float, delay: float) -> None:
    task = a_task(R, attempt=attempt, max_attempts=5, backoff_seconds=2.0)
    decision = decide(task, heard(F, attempt=attempt), now=NOW, schedule=LOOKS, jitter=jitter)
    assert seconds_to_the_look(decision) == pytest.approx(delay)


@pytest.mark.parametrize(("attempt", "most"), [(1, 1), (2, 2), (5, 5)])
def test_only_the_last_attempt_fails_the_task(attempt: int, most: int) -> None:
    decision = decided(a_task(R, attempt=attempt, max_attempts=most), heard(F, error=ERROR, attempt=attempt))
    assert (decision.event, decision.changes["status"]) == (EventType.TASK_FAILED, F)
    assert decision.changes["due_at"] is None


@pytest.mark.parametrize("end", [C, X])
def test_what_did_not_fail_is_not_tried_again(end: TaskStatus) -> None:
    assert decided(a_task(R, max_attempts=5), heard(end)).changes["status"] == end


def test_a_failure_that_another_attempt_would_only_repeat_is_final() -> None:
    assert decided(a_task(R, max_attempts=5), heard(F, retryable=False)).event == EventType.TASK_FAILED
    assert decided(a_task(R, max_attempts=5), ours()).event == EventType.TASK_FAILED


@pytest.mark.parametrize("said", [None, P, R, C, F, X])
@pytest.mark.parametrize(
    "old",
    [
        {"attempt": 1, "provider_task_id": "pt-1"},
        {"attempt": 1, "provider_task_id": None},
        {"provider_task_id": "pt-1"},
    ],
)
def test_an_update_of_a_superseded_attempt_becomes_a_receipt(said: TaskStatus | None, old: dict[str, Any]) -> None:
    task = a_task(R, attempt=2, max_attempts=3, provider_task_id="pt-2")
    decision = decided(task, heard(said, **{"word": "" if said else "dreaming", **old}))
    assert decision.receipt == ReceiptReason.SUPERSEDED
    assert decision.message
    assert (decision.changes, decision.event) == ({}, None)


def test_a_late_success_of_a_superseded_attempt_does_not_correct_the_failure() -> None:
    task = a_task(F, attempt=2, max_attempts=2, provider_task_id="pt-2")
    assert decided(task, heard(C, attempt=1)).receipt == ReceiptReason.SUPERSEDED


def test_a_poll_without_news_counts_and_waits_half_as_long_again() -> None:
    task = a_task(R, poll_count=0, last_update_at=NOW)
    waits = []
    for _ in range(9):
        decision = decided(task, heard(R, Source.POLL))
        assert (decision.event, decision.changes["poll_count"]) == (None, task.poll_count + 1)
        assert decision.changes.keys() == {"poll_count", "due_at"}
        waits.append(seconds_to_the_look(decision))
        task = a_task(R, poll_count=decision.changes["poll_count"], last_update_at=NOW)
    assert waits[:4] == pytest.approx([22.5, 33.75, 50.625, 75.9375])
    assert waits[-1] == 300


def test_a_look_is_never_set_after_the_time_out() -> None:
    task = a_task(R, poll_count=50, last_update_at=NOW - timedelta(seconds=86400 - 7))
    assert seconds_to_the_look(decided(task, heard(R, Source.POLL))) == 7
    late = a_task(R, poll_count=50, last_update_at=NOW - timedelta(days=2))
    assert seconds_to_the_look(decided(late, heard(R, Source.POLL))) == 0
    impatient = PollSchedule(first=15, longest=300, timeout=4)
    assert impatient.after_update(NOW) == NOW + timedelta(seconds=4)


@pytest.mark.parametrize("source", list(Source))
def test_news_postpones_the_look_whatever_way_it_came(source: Source) -> None:
    for news in (heard(R, source, progress=7), heard(None, source, word="dreaming")):
        changes = decided(a_task(R), news).changes
        assert (changes["poll_count"], changes["last_update_at"]) == (0, NOW)
        assert changes["due_at"] == NOW + timedelta(seconds=15)


def test_a_webhook_that_says_what_we_know_postpones_nothing() -> None:
    assert decided(a_task(R), heard(R)) == NOTHING


def test_a_poll_that_finds_only_a_known_word_counts_as_a_look() -> None:
    changes = decided(a_task(R, words=["dreaming"]), heard(None, Source.POLL, word="dreaming")).changes
    assert changes.keys() == {"poll_count", "due_at"}


def test_an_old_snapshot_that_identifies_a_submission_is_news() -> None:
    task = a_task(R, submission=Submission.UNKNOWN, provider_task_id=None)
    changes = decided(task, heard(P, provider_task_id="pt-1")).changes
    assert changes == {
        "provider_task_id": "pt-1",
        "submission": Submission.ACCEPTED,
        "last_update_at": NOW,
        "poll_count": 0,
        "due_at": NOW + timedelta(seconds=15),
    }


@pytest.mark.parametrize("end", [C, F, X])
def test_nobody_looks_at_what_has_ended(end: TaskStatus) -> None:
    assert decided(a_task(R), heard(end)).changes["due_at"] is None
    assert "due_at" not in decided(a_task(end), heard(R, Source.POLL)).changes
