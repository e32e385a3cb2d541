"""A run's graph: every fault with its code and its step, all at once; ancestors, descendants and order."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from receiver.domain.graph import (
    MOST_ISSUES,
    STEP_ATTEMPTS,
    Fault,
    Graph,
    InvalidGraph,
    Issue,
    OnFailure,
    StepSpec,
    check_count,
    check_graph,
    graph_issues,
    issue_of,
)

IDS = [f"s{number}" for number in range(10)]


def step(step_id: str, *depends_on: str, **fields: Any) -> StepSpec:
    return StepSpec(id=step_id, action="kling:video_generation", depends_on=depends_on, **fields)


def faults(*steps: StepSpec) -> list[tuple[str, str | None, str]]:
    return [(issue.code, issue.step_id, issue.param) for issue in graph_issues(steps)]


@st.composite
def any_steps(draw: st.DrawFn) -> list[StepSpec]:
    """Generate steps with any dependencies: on themselves, on each other, on a step that does not exist."""
    count = draw(st.integers(1, 10))
    names = st.sampled_from([*IDS[:count], "missing"])
    return [step(IDS[at], *draw(st.lists(names, max_size=3))) for at in range(count)]


def reaches_itself(steps: Sequence[StepSpec], start: str) -> bool:
    """Return whether `start` is in a cycle of more than one step, by a plain search."""
    edges = {each.id: {to for to in each.depends_on if to not in ("missing", each.id)} for each in steps}
    seen, now = set[str](), edges[start]
    while now - seen:
        seen |= now
        now = set[str]().union(*(edges[each] for each in now))
    return start in seen


def test_a_valid_graph_has_its_steps_unchanged() -> None:
    steps = (step("c", "a", "b", "a"), step("a"), step("b", "a", on_failure=OnFailure.CONTINUE))
    graph = check_graph(steps)
    assert graph.steps == steps
    assert graph.order == ("a", "b", "c")
    assert graph.dependencies["c"] == ("a", "b")
    assert graph.ancestors == {"a": set(), "b": {"a"}, "c": {"a", "b"}}
    assert graph.descendants == {"a": {"b", "c"}, "b": {"c"}, "c": set()}


def test_a_step_has_defaults() -> None:
    spec = StepSpec(id="a", action="brands.extract")
    assert (spec.input, spec.input_map, spec.depends_on) == ({}, {}, ())
    assert (spec.on_failure, spec.max_attempts) == (OnFailure.STOP, STEP_ATTEMPTS) == ("stop", 3)


@pytest.mark.parametrize("count", [0, 11, 5000])
def test_a_run_has_1_to_10_steps(count: int) -> None:
    steps = [step(f"s{number}", f"s{number + 1}", "missing") for number in range(count)]
    (issue,) = graph_issues(steps)
    assert (issue.code, issue.step_id, issue.param) == ("invalid_step_count", None, "steps")
    assert str(count) in issue.message
    with pytest.raises(InvalidGraph) as refusal:
        check_count(count)
    assert refusal.value.issues == [asdict(issue)]


def test_an_allowed_number_of_steps_is_accepted() -> None:
    check_count(1)
    check_count(10)


def test_a_run_may_have_ten_steps() -> None:
    assert len(check_graph([step(each) for each in IDS]).steps) == 10


@pytest.mark.parametrize("step_id", ["a", "A-b_9", "_", "-", "7", "a" * 64])
def test_a_valid_step_id_is_accepted(step_id: str) -> None:
    assert faults(step(step_id)) == []


@pytest.mark.parametrize("step_id", ["", " a", "a.b", "a b", "é", "a\n", "a" * 65, "$a", "a[0]"])
def test_an_invalid_step_id_is_reported(step_id: str) -> None:
    assert faults(step("ok"), step(step_id)) == [("invalid_step_id", step_id[:64], "steps[1].id")]


def test_each_repetition_of_a_step_id_is_reported() -> None:
    issues = graph_issues([step("a"), step("b"), step("a", "b"), step("a")])
    assert [(issue.code, issue.step_id, issue.param) for issue in issues] == [
        ("duplicate_step_id", "a", "steps[2].id"),
        ("duplicate_step_id", "a", "steps[3].id"),
    ]
    assert "steps[0]" in issues[0].message


def test_an_unknown_or_own_dependency_is_reported_once() -> None:
    assert faults(step("a", "a", "missing", "missing", "a", "other")) == [
        ("self_dependency", "a", "steps[0].depends_on"),
        ("unknown_dependency", "a", "steps[0].depends_on"),
        ("unknown_dependency", "a", "steps[0].depends_on"),
    ]


def test_the_issue_of_a_cycle_shows_it() -> None:
    (issue,) = graph_issues([step("x"), step("a", "c"), step("b", "a", "x"), step("c", "b")])
    assert (issue.code, issue.step_id, issue.param) == ("dependency_cycle", "a", "steps[1].depends_on")
    assert "a → c → b → a" in issue.message


def test_each_cycle_is_one_fault_and_a_step_that_only_depends_on_one_has_none() -> None:
    steps = [step("below", "a"), step("a", "b"), step("b", "a"), step("c", "d"), step("d", "c")]
    assert faults(*steps) == [
        ("dependency_cycle", "a", "steps[1].depends_on"),
        ("dependency_cycle", "c", "steps[3].depends_on"),
    ]


def test_cycles_that_share_a_step_are_one_fault() -> None:
    assert faults(step("a", "b", "c"), step("b", "a"), step("c", "a")) == [
        ("dependency_cycle", "a", "steps[0].depends_on")
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("$steps.a.result.url", None),
        ("$steps.b.result", None),
        ("$run.metadata.customer", None),
        ("$steps.missing.result", Fault.UNKNOWN_REFERENCE),
        ("$steps.c.result", Fault.REFERENCE_NOT_ANCESTOR),
        ("$steps.beside.result", Fault.REFERENCE_NOT_ANCESTOR),
        ("$steps.below.result", Fault.REFERENCE_NOT_ANCESTOR),
        ("$steps.a.output", Fault.INVALID_REFERENCE),
        ("$steps.a.result[*]", Fault.INVALID_REFERENCE),
        ("a plain text", Fault.INVALID_REFERENCE),
    ],
)
def test_a_step_may_use_only_the_results_of_its_ancestors(text: str, fault: Fault | None) -> None:
    steps = [
        step("a"),
        step("b", "a"),
        step("c", "b", input_map={"fine": "$run.metadata", "image": text}),
        step("beside", "a"),
        step("below", "c"),
    ]
    assert faults(*steps) == ([(fault, "c", "steps[2].input_map.image")] if fault else [])


def test_the_issue_of_a_reference_without_a_dependency_says_what_to_do() -> None:
    (issue,) = graph_issues([step("a"), step("b", input_map={"u": "$steps.a.result"})])
    assert issue.message == "the step does not depend on 'a'; add it to depends_on"


def test_all_faults_are_reported_in_the_order_of_the_steps() -> None:
    steps = [
        step("a", "c"),
        step("b!", "missing", input_map={"u": "$nothing"}),
        step("c", "a", "c"),
        step("a"),
    ]
    more = [issue_of(steps[3], Fault.UNKNOWN_ACTION, "unknown action", "steps[3].action")]
    with pytest.raises(InvalidGraph) as caught:
        check_graph(steps, more)
    assert [issue["code"] for issue in caught.value.issues] == [
        "dependency_cycle",
        "invalid_step_id",
        "unknown_dependency",
        "invalid_reference",
        "self_dependency",
        "duplicate_step_id",
        "unknown_action",
    ]
    assert caught.value.issues[-1] == {
        "code": "unknown_action",
        "message": "unknown action",
        "step_id": "a",
        "param": "steps[3].action",
    }
    assert (caught.value.code, caught.value.param, caught.value.status) == (
        "invalid_run_dag",
        "steps[0].depends_on",
        400,
    )
    assert "and 6 more" in caught.value.message


@pytest.mark.parametrize("fault", [Fault.INVALID_STEP_COUNT, Fault.INVALID_STEP_ID, Fault.UNKNOWN_ACTION])
def test_faults_outside_the_graph_have_the_code_of_an_invalid_body(fault: Fault) -> None:
    issue = Issue(fault, "a message", None, "steps")
    assert InvalidGraph([issue]).code == "invalid_request_body"
    assert InvalidGraph([issue, Issue(Fault.SELF_DEPENDENCY, "a message", "a", "steps[0]")]).code == "invalid_run_dag"


def test_a_small_request_body_causes_no_large_response() -> None:
    steps = [step(each, *(f"{'g' * 500}{number}" for number in range(1000))) for each in IDS]
    with pytest.raises(InvalidGraph) as caught:
        check_graph(steps, (issue_of(each, Fault.UNKNOWN_ACTION, "no", "steps") for each in steps))
    assert len(caught.value.issues) == MOST_ISSUES
    assert all(len(issue["message"]) < 200 for issue in caught.value.issues)


@given(any_steps())
def test_cycles_are_found_if_and_only_if_they_exist(steps: list[StepSpec]) -> None:
    in_cycles = [each.id for each in steps if reaches_itself(steps, each.id)]
    named = [issue.step_id for issue in graph_issues(steps) if issue.code == Fault.DEPENDENCY_CYCLE]
    assert set(named) <= set(in_cycles)
    assert named[:1] == in_cycles[:1]
    graph = Graph(tuple(steps))
    assert [each for each in graph.dependencies if each in graph.ancestors[each]] == in_cycles[::-1]


@given(any_steps())
def test_a_graph_without_cycles_has_an_order(steps: list[StepSpec]) -> None:
    if any(reaches_itself(steps, each.id) for each in steps):
        return
    graph = Graph(tuple(steps))
    assert sorted(graph.order) == sorted(each.id for each in steps)
    for at, each in enumerate(graph.order):
        assert graph.ancestors[each] <= set(graph.order[:at])
        assert graph.descendants[each] <= set(graph.order[at:])
