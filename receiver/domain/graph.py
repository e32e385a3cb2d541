"""A run's steps as a directed acyclic graph: its checks, which report every fault at once, and its orders."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from graphlib import TopologicalSorter
from itertools import chain, islice
from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict

from receiver.domain.references import LONGEST_ID, STEP_ID, InvalidReference, parse_reference
from receiver.errors import BadRequest

MOST_STEPS = 10
STEP_ATTEMPTS = 3
"""The `max_attempts` of a step whose `retry` does not set it."""
MOST_ISSUES = 50
"""How many issues one response lists at most: a small request may not cause a large response."""
_ID = re.compile(STEP_ID)


class OnFailure(StrEnum):
    """What the failure of a step means for the steps that do not depend on it."""

    STOP = "stop"
    """No further step starts; the steps under way may finish."""
    CONTINUE = "continue"
    """They continue. The run still fails at the end."""


class Fault(StrEnum):
    """The codes of the faults that steps may have. The first four are Pi's (`receiver/api/CONTRACTS.md`, "Pi")."""

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


_REQUEST_FAULTS = frozenset({Fault.INVALID_STEP_COUNT, Fault.INVALID_STEP_ID, Fault.UNKNOWN_ACTION})
"""The faults of the request rather than of the graph. A request with only these has the code of an invalid body."""


class Issue(Struct, frozen=True):
    """One fault: its code, a message for a person, the id of the step (None: all steps), and the request's field."""

    code: Fault
    message: str
    step_id: str | None
    param: str


class InvalidGraph(BadRequest):
    """A run's steps are invalid; `issues` lists every fault, each an object with the fields of `Issue`."""

    def __init__(self, issues: Sequence[Issue]) -> None:
        has_graph_fault = any(issue.code not in _REQUEST_FAULTS for issue in issues)
        first, more = issues[0], len(issues) - 1
        super().__init__(
            f"{first.param}: {first.message}" + (f" (and {more} more in `issues`)" if more else ""),
            code="invalid_run_dag" if has_graph_fault else "invalid_request_body",
            param=first.param,
            issues=[asdict(issue) for issue in issues],
        )


class StepSpec(Struct, frozen=True, kw_only=True):
    """A step as requested. `input_map` maps names of the input to references (`receiver.domain.references`)."""

    id: str
    action: str
    input: Mapping[str, Any] = field(default_factory=dict)
    input_map: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    on_failure: OnFailure = OnFailure.STOP
    max_attempts: int = STEP_ATTEMPTS
    backoff_seconds: float = 1.0
    provider: str | None = None
    """The provider that makes it, None for the one of its action."""


class Graph(Struct, frozen=True, dict=True):
    """The steps in the order of the request, and their dependencies. `check_graph` makes one of unchecked steps."""

    steps: tuple[StepSpec, ...]

    @cached_property
    def dependencies(self) -> Mapping[str, tuple[str, ...]]:
        """The direct dependencies of each step, by its id.

        The checks use this on invalid graphs too: a dependency on the step itself or on an unknown id is left out, and
        of several steps with one id the first counts.
        """
        ids = {step.id for step in self.steps}
        return {
            step.id: tuple(each for each in dict.fromkeys(step.depends_on) if each in ids and each != step.id)
            for step in reversed(self.steps)
        }

    @cached_property
    def ancestors(self) -> Mapping[str, frozenset[str]]:
        """Every step that a step depends on, directly or not, by its id. A step in a cycle is its own ancestor."""
        return {step_id: self._ancestors_of(step_id) for step_id in self.dependencies}

    @cached_property
    def descendants(self) -> Mapping[str, frozenset[str]]:
        """Every step that depends on a step, directly or not, by its id."""
        return {
            step_id: frozenset(other for other, ancestors in self.ancestors.items() if step_id in ancestors)
            for step_id in self.dependencies
        }

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The ids in topological order, each after its dependencies. Raises `CycleError` if there is a cycle."""
        sorter = TopologicalSorter({step.id: () for step in self.steps})
        for step_id, dependencies in self.dependencies.items():
            sorter.add(step_id, *dependencies)
        return tuple(sorter.static_order())

    def _ancestors_of(self, step_id: str) -> frozenset[str]:
        found, waiting = set[str](), list(self.dependencies[step_id])
        while waiting:
            each = waiting.pop()
            if each not in found:
                found.add(each)
                waiting.extend(self.dependencies[each])
        return frozenset(found)


def check_graph(steps: Sequence[StepSpec], more: Iterable[Issue] = ()) -> Graph:
    """Return the graph of `steps`. Raises `InvalidGraph` with its issues and `more`, those that the caller found."""
    graph = Graph(tuple(steps))
    issues = list(islice(chain(_issues(graph), more), MOST_ISSUES))
    if issues:
        raise InvalidGraph(issues)
    return graph


def graph_issues(steps: Sequence[StepSpec]) -> list[Issue]:
    """Return the issues of `steps`, in the order of the steps, at most `MOST_ISSUES`.

    For too many steps the only issue is their number, because the other checks would take too long.
    """
    return _issues(Graph(tuple(steps)))


def _issues(graph: Graph) -> list[Issue]:
    if not _is_valid_count(len(graph.steps)):
        return [_count_issue(len(graph.steps))]
    found = (
        issue
        for index, step in enumerate(graph.steps)
        for check in (_id_issues, _dependency_issues, _cycle_issues, _reference_issues)
        for issue in check(graph, index, step)
    )
    return list(islice(found, MOST_ISSUES))


def check_count(steps: int) -> None:
    """Raise `InvalidGraph` unless a run may have `steps` steps. For a check before each of a million is validated."""
    if not _is_valid_count(steps):
        raise InvalidGraph([_count_issue(steps)])


def issue_of(step: StepSpec, code: Fault, message: str, param: str) -> Issue:
    """Return an issue of one step; a step id that is too long is truncated."""
    return Issue(code, message, step.id[:LONGEST_ID], param)


def _is_valid_count(steps: int) -> bool:
    return 1 <= steps <= MOST_STEPS


def _count_issue(steps: int) -> Issue:
    message = f"a run must have 1 to {MOST_STEPS} steps, but this one has {steps}"
    return Issue(Fault.INVALID_STEP_COUNT, message, None, "steps")


def _id_issues(graph: Graph, index: int, step: StepSpec) -> Iterator[Issue]:
    param = f"steps[{index}].id"
    if _ID.fullmatch(step.id) is None:
        message = f"an id must have 1 to {LONGEST_ID} characters: ASCII letters, digits, hyphens and underscores"
        yield issue_of(step, Fault.INVALID_STEP_ID, message, param)
    first = [each.id for each in graph.steps].index(step.id)
    if first != index:
        yield issue_of(step, Fault.DUPLICATE_STEP_ID, f"steps[{first}] already has this id", param)


def _dependency_issues(graph: Graph, index: int, step: StepSpec) -> Iterator[Issue]:
    param = f"steps[{index}].depends_on"
    for each in dict.fromkeys(step.depends_on):
        if each == step.id:
            yield issue_of(step, Fault.SELF_DEPENDENCY, "the step depends on itself", param)
        elif each not in graph.dependencies:
            yield issue_of(step, Fault.UNKNOWN_DEPENDENCY, f"the run has no step {each[:LONGEST_ID]!r}", param)


def _cycle_issues(graph: Graph, index: int, step: StepSpec) -> Iterator[Issue]:
    """Yield one issue for each strongly connected component, at its first step, with a shortest cycle through that.

    Steps that are ancestors and descendants of each other are one component, however many cycles they form.
    """
    if step.id not in graph.ancestors[step.id]:  # as in every run that is valid
        return
    component_ids = graph.ancestors[step.id] & graph.descendants[step.id]
    component = [at for at, each in enumerate(graph.steps) if each.id in component_ids]
    if component[0] != index:
        return
    cycle = " → ".join(each[:LONGEST_ID] for each in _shortest_cycle(step.id, graph.dependencies))
    yield issue_of(step, Fault.DEPENDENCY_CYCLE, f"the step depends on itself: {cycle}", f"steps[{index}].depends_on")


def _shortest_cycle(start: str, dependencies: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the ids along a shortest cycle from `start` back to `start`, which must be in one (breadth first)."""
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
    except InvalidReference as error:
        return Fault.INVALID_REFERENCE, error.message
    if target is None or target in graph.ancestors[step.id]:
        return None
    if target not in graph.dependencies:
        return Fault.UNKNOWN_REFERENCE, f"the run has no step {target!r}"
    if target == step.id:
        return Fault.REFERENCE_NOT_ANCESTOR, "a step cannot use its own result"
    return Fault.REFERENCE_NOT_ANCESTOR, f"the step does not depend on {target!r}; add it to depends_on"
