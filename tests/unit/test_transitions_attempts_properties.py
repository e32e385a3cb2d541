"""Several attempts of one task: only the last one decides, however late the others are heard of."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from models import EventType, ReceiptReason, Submission, TaskStatus
from tests.unit.test_transitions_properties import PATIENT, History, a_row, content, folded, histories, mishaps

Campaign = tuple[list[History], History]
"""What happened in each attempt, in order; and how it was told."""


@st.composite
def campaigns(draw: st.DrawFn) -> Campaign:
    """Attempts that each fail but for the last, told with repeats, in any order and late; not before they began."""
    failing = [[TaskStatus.FAILED]]
    attempts = [
        draw(histories(attempt, failing, says_attempt=True)) for attempt in range(1, draw(st.integers(1, 3)) + 1)
    ]
    attempts.append(draw(histories(len(attempts) + 1, says_attempt=True)))
    told, late = History(), History()
    for history in attempts:
        some_late = draw(st.lists(st.sampled_from(late), max_size=3)) if late else []
        told += draw(mishaps([*history, *some_late]))
        late += history
    return attempts, told


@PATIENT
@given(campaigns())
def test_only_the_last_attempt_decides(campaign: Campaign) -> None:
    attempts, told = campaign
    row = folded(told, max_attempts=len(attempts))
    in_order = folded((update for history in attempts for update in history), max_attempts=len(attempts))
    assert row.end == in_order.end
    assert (row.state.attempt, row.state.status) == (len(attempts), attempts[-1][-1].status)
    failures = [event for event in row.events if event.event == EventType.TASK_FAILED]
    assert all(event.snapshot["attempt"] == len(attempts) for event in failures)


@PATIENT
@given(campaigns())
def test_an_attempt_that_failed_is_heard_of_no_more(
    campaign: Campaign,
) -> None:
    attempts, told = campaign
    row = a_row(max_attempts=len(attempts))
    began = 1
    for update in told:
        decision = row.apply(update)
        superseded = update.attempt is not None and update.attempt < began
        assert (decision.receipt == ReceiptReason.SUPERSEDED) is superseded
        if superseded:
            assert (decision.changes, decision.event) == ({}, None)
        if row.state.attempt > began:
            assert (row.state.status, row.state.provider_task_id) == (TaskStatus.QUEUED, None)
            assert row.state.submission == Submission.WAITING
        assert row.state.attempt - began in (0, 1)
        began = row.state.attempt


@PATIENT
@given(campaigns())
def test_no_event_is_made_twice_across_attempts(
    campaign: Campaign,
) -> None:
    attempts, told = campaign
    made = Counter(content(event) for event in folded(told, max_attempts=len(attempts)).events)
    assert set(made.values()) <= {1}
