"""What follows from the states of a run's steps, by example. By property: `test_advance_properties`."""

from itertools import permutations
from typing import Any

import pytest

from models import RUN_EVENTS, RUN_TERMINAL, STEP_TERMINAL, TASK_EVENTS, EventType, RunStatus, StepStatus, TaskStatus
from receiver.domain.advance import ENDING, STEP_OF, UNDER_WAY, Advance, advance, cancel, retry
from receiver.domain.graph import Graph, OnFailure, StepSpec
from receiver.errors import Conflict

P, Q, R = StepStatus.PENDING, StepStatus.QUEUED, StepStatus.PROCESSING
C, F, S, X = StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED
GOES_ON = RunStatus.IN_PROGRESS
CONTINUE = OnFailure.CONTINUE


def step(step_id: str, *depends_on: str, on_failure: OnFailure = OnFailure.STOP) -> StepSpec:
    return StepSpec(id=step_id, action="m:t", depends_on=depends_on, on_failure=on_failure)


def a_diamond(**fields: Any) -> Graph:
    """`a`, then `b` and `c` side by side, then `d`; and `e` by itself."""
    return Graph((step("a", **fields), step("b", "a", **fields), step("c", "a"), step("d", "b", "c"), step("e")))


def states(*words: StepStatus) -> dict[str, str]:
    return dict(zip("abcde", words, strict=False))


def test_what_depends_on_nothing_starts_at_once() -> None:
    assert advance(a_diamond(), RunStatus.PENDING, states(P, P, P, P, P)) == Advance(GOES_ON, start=("a", "e"))


@pytest.mark.parametrize("word", [Q, R])
def test_what_is_under_way_is_waited_for(word: StepStatus) -> None:
    assert advance(a_diamond(), GOES_ON, states(word, P, P, P, C)) == Advance(GOES_ON)


def test_what_is_ready_starts_side_by_side() -> None:
    assert advance(a_diamond(), GOES_ON, states(C, P, P, P, R)).start == ("b", "c")


def test_a_step_waits_for_all_that_it_depends_on() -> None:
    assert advance(a_diamond(), GOES_ON, states(C, C, R, P, C)) == Advance(GOES_ON)
    assert advance(a_diamond(), GOES_ON, states(C, C, C, P, C)) == Advance(GOES_ON, start=("d",))


def test_a_run_completes_with_its_last_step() -> None:
    done = advance(a_diamond(), GOES_ON, states(C, C, C, C, C))
    assert done == Advance(RunStatus.COMPLETED, EventType.RUN_COMPLETED)


def test_what_stands_below_a_failed_step_is_skipped_at_once() -> None:
    graph = a_diamond(on_failure=CONTINUE)
    assert advance(graph, GOES_ON, states(F, P, P, P, R)) == Advance(GOES_ON, skip=dict.fromkeys("bcd", "a"))
    assert advance(graph, GOES_ON, states(C, F, R, P, R)) == Advance(GOES_ON, skip={"d": "b"})


def test_what_is_skipped_names_the_failed_step_and_not_one_that_was_skipped_for_it() -> None:
    steps = (step("a", on_failure=CONTINUE), step("b", "a"), step("c", "b"), step("d"))
    for request in permutations(steps):
        assert advance(Graph(request), GOES_ON, states(F, S, P, R)).skip == {"c": "a"}


def test_a_failure_stops_what_has_not_begun() -> None:
    graph = Graph((step("a"), step("b"), step("c", "b"), step("d")))
    stopped = advance(graph, GOES_ON, states(F, R, P, R))
    assert stopped == Advance(GOES_ON, skip={"c": "a"})


def test_after_a_failure_that_continues_the_others_go_on() -> None:
    graph = Graph((step("a", on_failure=CONTINUE), step("b"), step("c", "b")))
    assert advance(graph, GOES_ON, states(F, C, P)) == Advance(GOES_ON, start=("c",))
    assert advance(graph, GOES_ON, states(F, C, C)) == Advance(RunStatus.FAILED, EventType.RUN_FAILED)


def test_a_run_fails_when_what_was_under_way_has_ended() -> None:
    graph = Graph((step("a"), step("b"), step("c", "b")))
    assert advance(graph, GOES_ON, states(F, R, S)) == Advance(GOES_ON)
    assert advance(graph, GOES_ON, states(F, C, S)) == Advance(RunStatus.FAILED, EventType.RUN_FAILED)


def test_a_run_that_fails_says_at_once_what_it_skips() -> None:
    ended = advance(Graph((step("a"), step("b", "a"))), GOES_ON, states(F, P))
    assert ended == Advance(RunStatus.FAILED, EventType.RUN_FAILED, skip={"b": "a"})
    assert ended.changes == {"b": S}


def test_a_step_whose_task_was_cancelled_by_itself_has_failed_to_its_run() -> None:
    ended = advance(Graph((step("a"), step("b", "a"))), GOES_ON, states(X, P))
    assert (ended.status, ended.skip) == (RunStatus.FAILED, {"b": "a"})


@pytest.mark.parametrize("status", [RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED])
@pytest.mark.parametrize("words", [(C, P, P, P, R), (F, P, P, P, P), (C, C, C, C, C)])
def test_nothing_follows_for_a_run_that_has_ended(status: RunStatus, words: tuple[StepStatus, ...]) -> None:
    assert advance(a_diamond(), status, states(*words)) == Advance(status)


def test_a_correction_before_the_end_counts() -> None:
    graph = Graph((step("a", on_failure=CONTINUE), step("b")))
    assert advance(graph, GOES_ON, states(F, R)) == Advance(GOES_ON)
    assert advance(graph, GOES_ON, states(C, C)).status == RunStatus.COMPLETED


def test_a_correction_brings_nothing_back_that_was_skipped() -> None:
    graph = Graph((step("a", on_failure=CONTINUE), step("b", "a"), step("c")))
    assert advance(graph, GOES_ON, states(C, S, C)).status == RunStatus.FAILED


def test_cancelling_ends_a_run_at_once() -> None:
    ended = cancel(a_diamond(), GOES_ON, states(C, R, Q, P, F))
    assert ended == Advance(RunStatus.CANCELLED, EventType.RUN_CANCELLED, cancel=("d",), recall=("b", "c"))
    assert ended.changes == {"d": X}


def test_cancelling_before_anything_began() -> None:
    ended = cancel(a_diamond(), RunStatus.PENDING, states(P, P, P, P, P))
    assert (ended.status, ended.cancel, ended.recall) == (RunStatus.CANCELLED, tuple("abcde"), ())


def test_cancelling_again_only_recalls_what_still_is_under_way() -> None:
    again = cancel(a_diamond(), RunStatus.CANCELLED, states(C, R, X, X, C))
    assert again == Advance(RunStatus.CANCELLED, recall=("b",))


@pytest.mark.parametrize("status", [RunStatus.COMPLETED, RunStatus.FAILED])
def test_a_run_that_ended_cannot_be_cancelled(status: RunStatus) -> None:
    with pytest.raises(Conflict, match=f"the run is {status}"):
        cancel(a_diamond(), status, states(C, C, C, C, C))


def test_retrying_does_again_what_failed_and_what_was_skipped_for_it() -> None:
    again = retry(a_diamond(), RunStatus.FAILED, states(C, F, C, S, F))
    assert again == Advance(GOES_ON, reset=("b", "d", "e"), start=("b", "e"))
    assert again.changes == {"b": Q, "d": P, "e": Q}


def test_retrying_a_cancelled_run_keeps_what_it_left_under_way() -> None:
    again = retry(a_diamond(), RunStatus.CANCELLED, states(C, R, X, X, C))
    assert again == Advance(GOES_ON, reset=("c", "d"), start=("c",))


def test_retrying_where_corrections_left_nothing_to_do_completes_the_run() -> None:
    again = retry(a_diamond(), RunStatus.FAILED, states(C, C, C, C, C))
    assert again == Advance(RunStatus.COMPLETED, EventType.RUN_COMPLETED)


@pytest.mark.parametrize("status", [RunStatus.PENDING, RunStatus.IN_PROGRESS, RunStatus.COMPLETED])
def test_only_a_run_that_failed_or_was_cancelled_can_be_retried(status: RunStatus) -> None:
    with pytest.raises(Conflict, match=f"the run is {status}"):
        retry(a_diamond(), status, states(C, F, R, P, C))


def test_a_step_mirrors_its_task() -> None:
    assert set(STEP_OF) == set(TaskStatus)
    assert {word for status, word in STEP_OF.items() if word in STEP_TERMINAL} == {C, F, X}
    assert {Q, R} == UNDER_WAY


def test_every_end_of_a_run_has_its_event() -> None:
    assert set(ENDING) == RUN_TERMINAL
    assert {EventType.RUN_CREATED, *ENDING.values()} == set(RUN_EVENTS)
    assert not set(RUN_EVENTS) & set(TASK_EVENTS)
