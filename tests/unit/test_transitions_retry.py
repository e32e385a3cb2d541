"""A retry that a client requests: another attempt, which updates of earlier attempts do not affect."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from models import TERMINAL, EventType, ReceiptReason, Submission, TaskStatus
from receiver.domain.task_state import TaskState
from receiver.domain.transitions import RETRYABLE, decide, retry
from receiver.domain.updates import ProviderUpdate, Source
from receiver.errors import Conflict
from tests.unit.test_transitions import ERROR, NOW, SCHEDULE, C, F, P, Q, R, S, X, reported, task_state

STATE = set(TaskState.__struct_fields__)


def retried(task: TaskState) -> TaskState:
    """Return the state of the task after a retry."""
    return replace(task, **{name: value for name, value in retry(task, NOW).changes.items() if name in STATE})


@pytest.mark.parametrize("end", [F, X])
def test_a_failed_or_cancelled_task_is_queued_again(end: TaskStatus) -> None:
    decision = retry(task_state(end, attempt=2, max_attempts=2), NOW)
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


def test_the_event_of_a_retry_names_the_event_of_the_end() -> None:
    decision = retry(task_state(F, submission=Submission.UNKNOWN, provider_task_id=None), NOW)
    assert decision.event == EventType.TASK_UPDATED
    assert decision.snapshot == {
        "status": Q,
        "attempt": 2,
        "progress": 0,
        "submission": Submission.WAITING,
        "retries": "the-end",
    }


@pytest.mark.parametrize(("attempt", "most", "then"), [(1, 1, 2), (1, 5, 5), (5, 5, 6)])
def test_max_attempts_is_raised_only_if_necessary(attempt: int, most: int, then: int) -> None:
    assert retry(task_state(F, attempt=attempt, max_attempts=most), NOW).changes["max_attempts"] == then


@pytest.mark.parametrize("status", [Q, S, P, R, C])
def test_a_running_or_completed_task_cannot_be_retried(status: TaskStatus) -> None:
    with pytest.raises(Conflict, match=status):
        retry(task_state(status), NOW)


def test_a_second_retry_conflicts_because_the_task_is_queued() -> None:
    with pytest.raises(Conflict, match="queued"):
        retry(retried(task_state(F)), NOW)


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
def test_late_updates_of_the_previous_attempt_change_nothing(end: TaskStatus, late: ProviderUpdate) -> None:
    decision = decide(retried(task_state(end)), late, now=NOW, schedule=SCHEDULE)
    assert decision.receipt == ReceiptReason.SUPERSEDED
    assert (decision.changes, decision.event) == ({}, None)


def test_an_update_of_the_new_attempt_is_applied() -> None:
    task = retried(task_state(F))
    decision = decide(task, reported(C, attempt=2, provider_task_id="pt-2"), now=NOW, schedule=SCHEDULE)
    assert (decision.changes["status"], decision.event) == (C, EventType.TASK_COMPLETED)
    assert "corrects" not in decision.snapshot


def test_only_an_unsuccessful_end_can_be_retried() -> None:
    assert TERMINAL - {C} == RETRYABLE


def test_a_retry_restarts_the_time_out() -> None:
    task = retried(task_state(F, last_update_at=NOW - timedelta(days=3)))
    assert SCHEDULE.deadline(task.last_update_at) > NOW
