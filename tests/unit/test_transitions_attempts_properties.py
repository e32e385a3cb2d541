"""Several attempts of one task: only the last one decides, however late updates of the others arrive."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from models import EventType, ReceiptReason, Submission, TaskStatus
from tests.unit.test_transitions_properties import (
    History,
    content,
    histories,
    reordered,
    row_after,
    submitted_row,
)

Attempts = tuple[list[History], History]
"""The history of each attempt in order, and all updates in the order in which they arrive."""


@st.composite
def multiple_attempts(draw: st.DrawFn) -> Attempts:
    """Generate attempts of which all but the last fail; updates arrive repeated, reordered and late, never early."""
    failing = [[TaskStatus.FAILED]]
    attempts = [
        draw(histories(attempt, failing, has_attempt=True)) for attempt in range(1, draw(st.integers(1, 3)) + 1)
    ]
    attempts.append(draw(histories(len(attempts) + 1, has_attempt=True)))
    received, late = History(), History()
    for history in attempts:
        some_late = draw(st.lists(st.sampled_from(late), max_size=3)) if late else []
        received += draw(reordered([*history, *some_late]))
        late += history
    return attempts, received


@given(multiple_attempts())
def test_only_the_last_attempt_decides(case: Attempts) -> None:
    attempts, received = case
    row = row_after(received, max_attempts=len(attempts))
    in_order = row_after((update for history in attempts for update in history), max_attempts=len(attempts))
    assert row.end == in_order.end
    assert (row.state.attempt, row.state.status) == (len(attempts), attempts[-1][-1].status)
    failures = [event for event in row.events if event.event == EventType.TASK_FAILED]
    assert all(event.snapshot["attempt"] == len(attempts) for event in failures)


@given(multiple_attempts())
def test_updates_of_a_failed_attempt_are_superseded(
    case: Attempts,
) -> None:
    attempts, received = case
    row = submitted_row(max_attempts=len(attempts))
    current = 1
    for update in received:
        decision = row.apply(update)
        superseded = update.attempt is not None and update.attempt < current
        assert (decision.receipt == ReceiptReason.SUPERSEDED) is superseded
        if superseded:
            assert (decision.changes, decision.event) == ({}, None)
        if row.state.attempt > current:
            assert (row.state.status, row.state.provider_task_id) == (TaskStatus.QUEUED, None)
            assert row.state.submission == Submission.WAITING
        assert row.state.attempt - current in (0, 1)
        current = row.state.attempt


@given(multiple_attempts())
def test_no_event_is_written_twice_across_attempts(
    case: Attempts,
) -> None:
    attempts, received = case
    made = Counter(content(event) for event in row_after(received, max_attempts=len(attempts)).events)
    assert set(made.values()) <= {1}
