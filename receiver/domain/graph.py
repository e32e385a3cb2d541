"""A run's steps as a graph: the form that everything else relies on, and what is wrong with one, all at once. Pure."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from graphlib import TopologicalSorter
from itertools import chain, islice
from typing import Any

from receiver.domain.references import LONGEST_ID, STEP_ID, BadReference, parse_reference
from receiver.errors import BadRequest

MOST_STEPS = 10
STEP_ATTEMPTS = 3
"""A step's tries at the provider where its `retry` says nothing."""
MOST_ISSUES = 50
"""More are not told at once: a small body must not make a large answer."""
_ID = re.compile(STEP_ID)


class OnFailure(StrEnum):
    """What a step's failure means for the steps that do not depend on it."""

    STOP = "stop"
    """None of them begins any more; those that run are left to end."""
    CONTINUE = "continue"
    """They go on; the run fails all the same."""


class Fault(StrEnum):
    """The names of what can be wrong with a run's steps. The first four are Pi's (contracts/pi.md)."""

    DUPLICATE_STEP_ID = "duplicate_step_id"
    UNKNOWN_DEPENDENCY = "unknown_dependency"
    SELF_DEPENDENCY = "self_dependency"
    DEPENDENCY_CYCLE = "dependency_cycle"
    INVALID_REFERENCE = "invalid_reference"
    UNKNOWN_REFERENCE = "unknown_reference"
    REFERENCE_NOT_ANCESTOR = "reference_not_ancestor"
    INVALID_STEP_COUNT = "invalid_step_count"
    INVALID_STEP_ID = "invalid_step_id"
    UNKNOWN_ACTION = "unknown_action"


_NOT_OF_THE_GRAPH = frozenset({Fault.INVALID_STEP_COUNT, Fault.INVALID_STEP_ID, Fault.UNKNOWN_ACTION})


@dataclass(frozen=True, slots=True)
class Issue:
    """One fault: its name, what it is for a person, the step, and the field of the request."""

    code: Fault
    message: str
    step_id: str | None
    param: str


class BadGraph(BadRequest):
    """A run's steps that cannot be; `issues` names every fault, each an object with the fields of `Issue`."""

    def __init__(self, issues: Sequence[Issue]) -> None:
        of_the_graph = any(issue.code not in _NOT_OF_THE_GRAPH for issue in issues)
        first, more = issues[0], len(issues) - 1
        super().__init__(
            f"{first.param}: {first.message}" + (f" (and {more} more in `issues`)" if more else ""),
            code="invalid_run_dag" if of_the_graph else "invalid_request_body",
            param=first.param,
            issues=[asdict(issue) for issue in issues],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """A step as its run was asked for."""

    id: str
    action: str
    input: Mapping[str, Any] = field(default_factory=dict)
    input_map: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    on_failure: OnFailure = OnFailure.STOP
    max_attempts: int = STEP_ATTEMPTS
    backoff_seconds: float = 1.0


@dataclass(frozen=True)
class Graph:
    """The steps in the order of the request, and who stands above whom. `check_graph` makes one of unknown steps."""

    steps: tuple[StepSpec, ...]

    @cached_property
    def dependencies(self) -> Mapping[str, tuple[str, ...]]:
        """Each step's direct dependencies, without itself and what is no step; of equal ids the first counts."""
        ids = {step.id for step in self.steps}
        return {
            step.id: tuple(each for each in dict.fromkeys(step.depends_on) if each in ids and each != step.id)
            for step in reversed(self.steps)
        }

    @cached_property
    def ancestors(self) -> Mapping[str, frozenset[str]]:
        """Every step that a step depends on, direct or not."""
        return {step_id: self._above(step_id) for step_id in self.dependencies}

    @cached_property
    def descendants(self) -> Mapping[str, frozenset[str]]:
        """Every step that depends on a step, direct or not."""
        return {
            step_id: frozenset(below for below, above in self.ancestors.items() if step_id in above)
            for step_id in self.dependencies
        }

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The ids, each after all that it depends on. Only where there is no cycle."""
        sorter = TopologicalSorter({step.id: () for step in self.steps})
        for step_id, above in self.dependencies.items():
            sorter.add(step_id, *above)
        return tuple(sorter.static_order())

    def _above(self, step_id: str) -> frozenset[str]:
        found, waiting = set[str](), list(self.dependencies[step_id])
        while waiting:
            each = waiting.pop()
            if each not in found:
                found.add(each)
                waiting.extend(self.dependencies[each])
        return frozenset(found)


def check_graph(steps: Sequence[StepSpec], more: Iterable[Issue] = ()) -> Graph:
    """Return the graph of `steps`; `more` are issues that others found. Raises `BadGraph` that names all."""
    issues = list(islice(chain(graph_issues(steps), more), MOST_ISSUES))
    if issues:
        raise BadGraph(issues)
    return Graph(tuple(steps))


def graph_issues(steps: Sequence[StepSpec]) -> list[Issue]:
    """Return what is wrong with `steps`, in their order, at most `MOST_ISSUES`.

    Of too many steps only their number is told: nobody wants to wait for the rest.
    """
    if not _is_countable(len(steps)):
        return [_count_issue(len(steps))]
    graph = Graph(tuple(steps))
    found = (
        issue
        for index, step in enumerate(steps)
        for check in (_id_issues, _dependency_issues, _cycle_issues, _reference_issues)
        for issue in check(graph, index, step)
    )
    return list(islice(found, MOST_ISSUES))


def check_count(steps: int) -> None:
    """Raise `BadGraph` unless a run may have so many steps: before anybody looks at each of a million."""
    if not _is_countable(steps):
        raise BadGraph([_count_issue(steps)])


def issue_of(step: StepSpec, code: Fault, message: str, param: str) -> Issue:
    """Return an issue of one step; an id that is too long is cut."""
    return Issue(code, message, step.id[:LONGEST_ID], param)


def _is_countable(steps: int) -> bool:
    return 1 <= steps <= MOST_STEPS


def _count_issue(steps: int) -> Issue:
    message = f"a run has 1 to {MOST_STEPS} steps, and this one {steps}"
    return Issue(Fault.INVALID_STEP_COUNT, message, None, "steps")


def _id_issues(graph: Graph, index: int, step: StepSpec) -> Iterator[Issue]:
    param = f"steps[{index}].id"
    if _ID.fullmatch(step.id) is None:
        message = f"an id has 1 to {LONGEST_ID} characters: ASCII letters, digits, hyphens and underscores"
        yield issue_of(step, Fault.INVALID_STEP_ID, message, param)
    first = next(at for at, each in enumerate(graph.steps) if each.id == step.id)
    if first != index:
        yield issue_of(step, Fault.DUPLICATE_STEP_ID, f"steps[{first}] has this id already", param)


def _dependency_issues(graph: Graph, index: int, step: StepSpec) -> Iterator[Issue]:
    param = f"steps[{index}].depends_on"
    for each in dict.fromkeys(step.depends_on):
        if each == step.id:
            yield issue_of(step, Fault.SELF_DEPENDENCY, "it depends on itself", param)
        elif each not in graph.dependencies:
            yield issue_of(step, Fault.UNKNOWN_DEPENDENCY, f"there is no step {each[:LONGEST_ID]!r}", param)


def _cycle_issues(graph: Graph, index: int, step: StepSpec) -> Iterator[Issue]:
    """Tell each knot of cycles once, at its first step, by a shortest cycle through that."""
    around = graph.ancestors[step.id] & graph.descendants[step.id]
    knot = [at for at, each in enumerate(graph.steps) if each.id in around]
    if not knot or knot[0] != index:
        return
    cycle = " → ".join(each[:LONGEST_ID] for each in _cycle_through(step.id, graph.dependencies))
    yield issue_of(step, Fault.DEPENDENCY_CYCLE, f"it waits for itself: {cycle}", f"steps[{index}].depends_on")


def _cycle_through(start: str, dependencies: Mapping[str, Sequence[str]]) -> list[str]:
    waiting, seen = deque([[start]]), {start}
    while True:
        path = waiting.popleft()
        for each in dependencies[path[-1]]:
            if each == start:
                return [*path, start]
            if each not in seen:
                seen.add(each)
                waiting.append([*path, each])


def _reference_issues(graph: Graph, index: int, step: StepSpec) -> Iterator[Issue]:
    for name, text in step.input_map.items():
        fault = _reference_fault(graph, step, text)
        if fault is not None:
            yield issue_of(step, *fault, f"steps[{index}].input_map.{name[:LONGEST_ID]}")


def _reference_fault(graph: Graph, step: StepSpec, text: str) -> tuple[Fault, str] | None:
    try:
        target = parse_reference(text).step_id
    except BadReference as error:
        return Fault.INVALID_REFERENCE, error.message
    if target is None or target in graph.ancestors[step.id]:
        return None
    if target not in graph.dependencies:
        return Fault.UNKNOWN_REFERENCE, f"there is no step {target!r}"
    if target == step.id:
        return Fault.REFERENCE_NOT_ANCESTOR, "a step cannot use its own result"
    return Fault.REFERENCE_NOT_ANCESTOR, f"it does not wait for {target!r}: name it in depends_on"
