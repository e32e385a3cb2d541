"""Another attempt because the client says so: no update brings it about, and no update of before undoes it."""

from dataclasses import fields, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import TERMINAL, EventType, ReceiptReason, Submission, TaskStatus
from receiver.domain.transitions import RETRYABLE, TaskState, decide, retry
from receiver.domain.updates import ProviderUpdate, Source
from receiver.errors import Conflict
from tests.unit.test_transitions import ERROR, LOOKS, NOW, C, F, P, Q, R, S, X, a_task, heard

STATE = {field.name for field in fields(TaskState)}


def retried(task: TaskState) -> TaskState:
    """Return the task as it is after a retry."""
    return replace(task, **{name: value for name, value in retry(task, NOW).changes.items() if name in STATE})


@pytest.mark.parametrize("end", [F, X])
def test_what_failed_or_was_cancelled_waits_to_be_sent_again(end: TaskStatus) -> None:
    decision = retry(a_task(end, attempt=2, max_attempts=2), NOW)
    expected = {
        "status": Q,
        "submission": Submission.WAITING,
        "attempt": 3,
        "provider_task_id": None,
        "progress": 0,
        "revision": "",
        "error": None,
        "output": None,
        "ended_at": None,
        "ended_event": None,
        "due_at": NOW,
        "last_update_at": NOW,
    }
    assert {name: decision.changes[name] for name in expected} == expected


def test_the_event_says_which_end_it_goes_back_on() -> None:
    decision = retry(a_task(F, submission=Submission.UNKNOWN, provider_task_id=None), NOW)
    assert decision.event == EventType.TASK_UPDATED
    assert decision.snapshot == {
        "status": Q,
        "attempt": 2,
        "progress": 0,
        "submission": Submission.WAITING,
        "retries": "the-end",
    }


@pytest.mark.parametrize(("attempt", "most", "then"), [(1, 1, 2), (1, 5, 5), (5, 5, 6)])
def test_the_limit_of_attempts_is_raised_only_if_it_must_be(attempt: int, most: int, then: int) -> None:
    assert retry(a_task(F, attempt=attempt, max_attempts=most), NOW).changes["max_attempts"] == then


@pytest.mark.parametrize("status", [Q, S, P, R, C])
def test_what_runs_or_is_completed_cannot_be_retried(status: TaskStatus) -> None:
    with pytest.raises(Conflict, match=status):
        retry(a_task(status), NOW)


def test_a_second_retry_finds_the_task_in_the_queue() -> None:
    with pytest.raises(Conflict, match="queued"):
        retry(retried(a_task(F)), NOW)


UPDATES = st.builds(
    ProviderUpdate,
    source=st.sampled_from(Source),
    status=st.sampled_from([None, S, P, R, C, F, X]),
    word=st.sampled_from(["", "dreaming"]),
    provider_task_id=st.sampled_from([None, "pt-1"]),
    attempt=st.just(1),
    error=st.sampled_from([None, ERROR]),
    progress=st.integers(0, 100),
    by_provider=st.booleans(),
    retryable=st.booleans(),
)


@given(st.sampled_from(sorted(RETRYABLE)), UPDATES)
def test_whatever_is_still_heard_of_the_attempt_before_changes_nothing(end: TaskStatus, late: ProviderUpdate) -> None:
    decision = decide(retried(a_task(end)), late, now=NOW, schedule=LOOKS)
    assert decision.receipt == ReceiptReason.SUPERSEDED
    assert (decision.changes, decision.event) == ({}, None)


def test_news_of_the_new_attempt_moves_it_on() -> None:
    task = retried(a_task(F))
    decision = decide(task, heard(C, attempt=2, provider_task_id="pt-2"), now=NOW, schedule=LOOKS)
    assert (decision.changes["status"], decision.event) == (C, EventType.TASK_COMPLETED)
    assert "corrects" not in decision.snapshot


def test_only_an_end_without_success_can_be_retried() -> None:
    assert TERMINAL - {C} == RETRYABLE


def test_the_time_that_nobody_may_hear_of_it_begins_anew() -> None:
    task = retried(a_task(F, last_update_at=NOW - timedelta(days=3)))
    assert LOOKS.deadline(task.last_update_at) > NOW
