"""What follows from the statuses of a run's steps, by example. `test_advance_properties` checks generated runs."""

from itertools import permutations
from typing import Any

import pytest

from models import RUN_EVENTS, RUN_TERMINAL, STEP_TERMINAL, TASK_EVENTS, EventType, RunStatus, StepStatus, TaskStatus
from receiver.domain.advance import ENDING, STEP_OF, UNDER_WAY, Advance, advance, cancel, heal, retry
from receiver.domain.graph import Graph, OnFailure, StepSpec
from receiver.errors import Conflict

P, Q, R = StepStatus.PENDING, StepStatus.QUEUED, StepStatus.PROCESSING
C, F, S, X = StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED
IN_PROGRESS = RunStatus.IN_PROGRESS
CONTINUE = OnFailure.CONTINUE


def step(step_id: str, *depends_on: str, on_failure: OnFailure = OnFailure.STOP) -> StepSpec:
    return StepSpec(id=step_id, action="m:t", depends_on=depends_on, on_failure=on_failure)


def a_diamond(**fields: Any) -> Graph:
    """Return `a`, then `b` and `c` concurrently, then `d`; and `e` without dependencies."""
    return Graph((step("a", **fields), step("b", "a", **fields), step("c", "a"), step("d", "b", "c"), step("e")))


def states(*step_statuses: StepStatus) -> dict[str, str]:
    return dict(zip("abcde", step_statuses, strict=False))


def test_steps_without_dependencies_start_at_once() -> None:
    assert advance(a_diamond(), RunStatus.PENDING, states(P, P, P, P, P)) == Advance(IN_PROGRESS, start=("a", "e"))


@pytest.mark.parametrize("status", [Q, R])
def test_a_run_waits_for_steps_under_way(status: StepStatus) -> None:
    assert advance(a_diamond(), IN_PROGRESS, states(status, P, P, P, C)) == Advance(IN_PROGRESS)


def test_all_steps_that_are_ready_start_concurrently() -> None:
    assert advance(a_diamond(), IN_PROGRESS, states(C, P, P, P, R)).start == ("b", "c")


def test_a_step_waits_for_all_its_dependencies() -> None:
    assert advance(a_diamond(), IN_PROGRESS, states(C, C, R, P, C)) == Advance(IN_PROGRESS)
    assert advance(a_diamond(), IN_PROGRESS, states(C, C, C, P, C)) == Advance(IN_PROGRESS, start=("d",))


def test_a_run_completes_with_its_last_step() -> None:
    done = advance(a_diamond(), IN_PROGRESS, states(C, C, C, C, C))
    assert done == Advance(RunStatus.COMPLETED, EventType.RUN_COMPLETED)


def test_the_descendants_of_a_failed_step_are_skipped_at_once() -> None:
    graph = a_diamond(on_failure=CONTINUE)
    assert advance(graph, IN_PROGRESS, states(F, P, P, P, R)) == Advance(IN_PROGRESS, skip=dict.fromkeys("bcd", "a"))
    assert advance(graph, IN_PROGRESS, states(C, F, R, P, R)) == Advance(IN_PROGRESS, skip={"d": "b"})


def test_a_skipped_step_names_the_failed_step_and_not_another_skipped_one() -> None:
    steps = (step("a", on_failure=CONTINUE), step("b", "a"), step("c", "b"), step("d"))
    for request in permutations(steps):
        assert advance(Graph(request), IN_PROGRESS, states(F, S, P, R)).skip == {"c": "a"}


def test_a_failure_stops_the_steps_that_have_not_started() -> None:
    graph = Graph((step("a"), step("b"), step("c", "b"), step("d")))
    stopped = advance(graph, IN_PROGRESS, states(F, R, P, R))
    assert stopped == Advance(IN_PROGRESS, skip={"c": "a"})


def test_after_a_failure_with_continue_the_other_steps_run() -> None:
    graph = Graph((step("a", on_failure=CONTINUE), step("b"), step("c", "b")))
    assert advance(graph, IN_PROGRESS, states(F, C, P)) == Advance(IN_PROGRESS, start=("c",))
    assert advance(graph, IN_PROGRESS, states(F, C, C)) == Advance(RunStatus.FAILED, EventType.RUN_FAILED)


def test_a_run_fails_after_its_steps_under_way_have_ended() -> None:
    graph = Graph((step("a"), step("b"), step("c", "b")))
    assert advance(graph, IN_PROGRESS, states(F, R, S)) == Advance(IN_PROGRESS)
    assert advance(graph, IN_PROGRESS, states(F, C, S)) == Advance(RunStatus.FAILED, EventType.RUN_FAILED)


def test_a_run_may_skip_steps_and_fail_in_one_decision() -> None:
    ended = advance(Graph((step("a"), step("b", "a"))), IN_PROGRESS, states(F, P))
    assert ended == Advance(RunStatus.FAILED, EventType.RUN_FAILED, skip={"b": "a"})
    assert ended.changes == {"b": S}


def test_a_step_whose_task_was_cancelled_counts_as_failed() -> None:
    ended = advance(Graph((step("a"), step("b", "a"))), IN_PROGRESS, states(X, P))
    assert (ended.status, ended.skip) == (RunStatus.FAILED, {"b": "a"})


@pytest.mark.parametrize("status", [RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED])
@pytest.mark.parametrize("step_statuses", [(C, P, P, P, R), (F, P, P, P, P), (C, C, C, C, C)])
def test_a_run_that_has_ended_does_not_change(status: RunStatus, step_statuses: tuple[StepStatus, ...]) -> None:
    assert advance(a_diamond(), status, states(*step_statuses)) == Advance(status)


def test_a_correction_before_the_end_of_the_run_counts() -> None:
    graph = Graph((step("a", on_failure=CONTINUE), step("b")))
    assert advance(graph, IN_PROGRESS, states(F, R)) == Advance(IN_PROGRESS)
    assert advance(graph, IN_PROGRESS, states(C, C)).status == RunStatus.COMPLETED


@pytest.mark.parametrize("status", [IN_PROGRESS, RunStatus.FAILED])
def test_a_correction_starts_the_steps_that_were_skipped_for_it(status: RunStatus) -> None:
    graph = Graph((step("a", on_failure=CONTINUE), step("b", "a"), step("c", "b"), step("d")))
    assert heal(graph, status, states(C, S, S, C)) == Advance(IN_PROGRESS, reset=("b", "c"), start=("b",))


def test_a_correction_leaves_what_another_failure_skipped() -> None:
    graph = Graph((step("a", on_failure=CONTINUE), step("b", "a"), step("c", on_failure=CONTINUE), step("d", "c", "a")))
    healed = heal(graph, RunStatus.FAILED, states(C, S, F, S))
    assert (healed.status, healed.start, dict(healed.skip)) == (IN_PROGRESS, ("b",), {"d": "c"})


def test_a_correction_changes_no_run_that_was_cancelled() -> None:
    assert heal(a_diamond(), RunStatus.CANCELLED, states(C, X, X, X, X)) == Advance(RunStatus.CANCELLED)


def test_a_completed_run_tells_its_end_once_more_with_a_late_result() -> None:
    assert heal(a_diamond(), RunStatus.COMPLETED, states(C, C, C, C, C)) == Advance(
        RunStatus.COMPLETED, EventType.RUN_COMPLETED
    )


def test_cancelling_ends_a_run_at_once() -> None:
    ended = cancel(a_diamond(), IN_PROGRESS, states(C, R, Q, P, F))
    assert ended == Advance(RunStatus.CANCELLED, EventType.RUN_CANCELLED, cancel=("d",), recall=("b", "c"))
    assert ended.changes == {"d": X}


def test_cancelling_a_run_of_which_no_step_has_started() -> None:
    ended = cancel(a_diamond(), RunStatus.PENDING, states(P, P, P, P, P))
    assert (ended.status, ended.cancel, ended.recall) == (RunStatus.CANCELLED, tuple("abcde"), ())


def test_cancelling_again_only_asks_the_provider_to_cancel_the_steps_under_way() -> None:
    again = cancel(a_diamond(), RunStatus.CANCELLED, states(C, R, X, X, C))
    assert again == Advance(RunStatus.CANCELLED, recall=("b",))


@pytest.mark.parametrize("status", [RunStatus.COMPLETED, RunStatus.FAILED])
def test_a_run_that_ended_cannot_be_cancelled(status: RunStatus) -> None:
    with pytest.raises(Conflict, match=f"the run is {status}"):
        cancel(a_diamond(), status, states(C, C, C, C, C))


def test_retrying_runs_failed_and_skipped_steps_again() -> None:
    again = retry(a_diamond(), RunStatus.FAILED, states(C, F, C, S, F))
    assert again == Advance(IN_PROGRESS, reset=("b", "d", "e"), start=("b", "e"), is_retry=True)
    assert again.changes == {"b": Q, "d": P, "e": Q}


def test_retrying_a_cancelled_run_keeps_its_steps_under_way() -> None:
    again = retry(a_diamond(), RunStatus.CANCELLED, states(C, R, X, X, C))
    assert again == Advance(IN_PROGRESS, reset=("c", "d"), start=("c",), is_retry=True)


def test_retrying_a_run_whose_failed_steps_were_all_corrected_completes_it() -> None:
    again = retry(a_diamond(), RunStatus.FAILED, states(C, C, C, C, C))
    assert again == Advance(RunStatus.COMPLETED, EventType.RUN_COMPLETED, is_retry=True)


@pytest.mark.parametrize("status", [RunStatus.PENDING, RunStatus.IN_PROGRESS, RunStatus.COMPLETED])
def test_only_a_run_that_failed_or_was_cancelled_can_be_retried(status: RunStatus) -> None:
    with pytest.raises(Conflict, match=f"the run is {status}"):
        retry(a_diamond(), status, states(C, F, R, P, C))


def test_every_task_status_has_a_step_status() -> None:
    assert set(STEP_OF) == set(TaskStatus)
    assert {each for each in STEP_OF.values() if each in STEP_TERMINAL} == {C, F, X}
    assert {Q, R} == UNDER_WAY


def test_every_terminal_status_of_a_run_has_its_event() -> None:
    assert set(ENDING) == RUN_TERMINAL
    assert {EventType.RUN_CREATED, *ENDING.values()} == set(RUN_EVENTS)
    assert not set(RUN_EVENTS) & set(TASK_EVENTS)
