"""What cancelling a run changes on the tasks of its steps, and that no attempt begins afterwards."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from models import TERMINAL, EventType, Submission, TaskStatus
from receiver.domain.decisions import NOTHING, Decision, is_unsent
from receiver.domain.task_state import TaskState
from receiver.domain.transitions import decide, recall, resume
from receiver.domain.updates import ProviderUpdate, Source
from tests.unit.test_transitions import ERROR, NOW, SCHEDULE, F, P, Q, R, S, X, concluded, decided, reported, task_state

RECALLED = {"cancel_requested_at": NOW, "poll_count": 0}
SENDING = task_state(Q, submission=Submission.SENDING, max_attempts=3)
UNKNOWN = task_state(Q, submission=Submission.UNKNOWN, max_attempts=3)
UNDER_WAY = [task_state(status, max_attempts=3) for status in (S, P, R)]
_LONGEST = timedelta(seconds=60)
updates = st.builds(
    ProviderUpdate,
    source=st.sampled_from(Source),
    status=st.none() | st.sampled_from(TaskStatus),
    word=st.sampled_from(["", "dreaming"]),
    provider_task_id=st.none() | st.just("pt-1"),
    progress=st.integers(0, 100),
    error=st.just(ERROR),
    retryable=st.booleans(),
) | st.builds(concluded, st.sampled_from([F, X]))


def after(task: TaskState, decision: Decision) -> TaskState:
    """Return the state of a task after a decision."""
    changed = replace(task)
    changed.apply_changes(decision.changes)
    return changed


def test_a_task_that_waits_to_be_sent_is_cancelled_with_its_run() -> None:
    decision = recall(task_state(Q, attempt=2, max_attempts=3), NOW)
    assert (decision.event, decision.changes["status"], decision.changes["due_at"]) == (
        EventType.TASK_CANCELLED,
        X,
        None,
    )


@pytest.mark.parametrize("task", [UNKNOWN, *UNDER_WAY])
def test_a_task_under_way_is_due_for_its_recall_and_begins_no_other_attempt(task: TaskState) -> None:
    decision = recall(task, NOW)
    assert (decision.event, decision.changes) == (None, {**RECALLED, "max_attempts": 1, "due_at": NOW})


def test_a_task_that_is_being_sent_stays_leased_until_the_outcome_is_known() -> None:
    assert recall(SENDING, NOW).changes == {**RECALLED, "max_attempts": 1}


@pytest.mark.parametrize("end", sorted(TERMINAL))
def test_a_task_that_has_ended_is_neither_recalled_nor_resumed(end: TaskStatus) -> None:
    assert (recall(task_state(end), NOW), resume(task_state(end), 3)) == (NOTHING, NOTHING)


def test_a_recalled_task_is_due_at_once_when_its_provider_s_id_becomes_known() -> None:
    sending = after(SENDING, recall(SENDING, NOW))
    assert decided(sending, reported(P, Source.SUBMIT)).changes["due_at"] == NOW


def test_looks_at_a_recalled_task_begin_after_a_second_and_slow_down() -> None:
    task, delays = after(UNDER_WAY[2], recall(UNDER_WAY[2], NOW)), list[float]()
    for _ in range(12):
        decision = decided(replace(task, leased=True), reported(R, Source.POLL))
        delays.append((decision.changes["due_at"] - NOW).total_seconds())
        task = after(task, decision)
    assert delays == sorted(delays)
    assert (1 <= delays[0] <= 2, delays[-1]) == (True, 60)


def test_an_older_answer_with_news_does_not_put_off_a_recall_that_is_due() -> None:
    task = after(UNDER_WAY[2], recall(UNDER_WAY[2], NOW))
    news = reported(R, Source.POLL, progress=70)
    assert decided(replace(task, leased=False), news).changes["due_at"] == NOW
    assert decided(replace(task, leased=True), news).changes["due_at"] > NOW


def test_a_resumed_task_has_the_attempts_of_its_step_again_and_is_polled_like_any_other() -> None:
    task = after(UNDER_WAY[2], recall(UNDER_WAY[2], NOW))
    task = after(task, resume(task, 3))
    assert (task.cancel_requested_at, task.max_attempts) == (None, 3)
    decision = decided(task, reported(F, error=ERROR))
    assert (decision.changes["attempt"], decision.changes["submission"]) == (2, Submission.WAITING)


@given(
    st.sampled_from([task_state(Q, max_attempts=3), SENDING, UNKNOWN, *UNDER_WAY]),
    st.lists(updates, max_size=8),
    st.lists(updates, max_size=8),
)
def test_no_attempt_begins_or_may_be_sent_after_a_recall_wherever_it_falls(
    task: TaskState, before: list[ProviderUpdate], then: list[ProviderUpdate]
) -> None:
    for update in before:
        task = after(task, decided(task, update))
    task = after(task, recall(task, NOW))
    attempt = task.attempt
    for update in then:
        known, decision = task.provider_task_id, decided(task, update)
        task = after(task, decision)
        if task.cancel_requested_at is not None:  # else it had ended before
            assert_due_soon(decision, is_identified=known is None and task.provider_task_id is not None)
    assert task.attempt == attempt
    assert not is_unsent(task)


def assert_due_soon(decision: Decision, *, is_identified: bool) -> None:
    """Check that the next look at a recalled task is not put off, and is due now when the provider's id is known."""
    due_at: datetime | None = decision.changes.get("due_at")
    if due_at is not None:
        assert due_at <= NOW + _LONGEST
        assert not is_identified or due_at == NOW


def test_the_state_has_every_column_that_a_recall_changes() -> None:
    names = set(TaskState.__struct_fields__)
    assert set(recall(SENDING, NOW).changes) <= names


def test_an_update_that_fails_a_recalled_attempt_ends_the_task() -> None:
    task = replace(UNDER_WAY[2], cancel_requested_at=NOW)  # even with attempts left
    assert decide(task, reported(F, error=ERROR), now=NOW, schedule=SCHEDULE).changes["status"] == F
