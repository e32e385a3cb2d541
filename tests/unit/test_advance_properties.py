"""Runs of any graph with any outcomes, whose steps change in any order and are advanced more than once."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from models import RUN_TERMINAL, STEP_TERMINAL, EventType, RunStatus, StepStatus
from receiver.domain.advance import UNDER_WAY, Advance, advance, cancel, retry
from receiver.domain.graph import Graph, OnFailure, StepSpec, check_graph

RANDOMS = st.randoms(use_true_random=False)
ON_FAILURE = st.sampled_from(OnFailure)
UNSUCCESSFUL = (StepStatus.FAILED, StepStatus.CANCELLED)
Outcomes = Mapping[str, StepStatus]
Scenario = tuple[Graph, Outcomes]
"""A graph, and the terminal status of each of its steps if it starts."""


@dataclass
class RunSimulation:
    """The rows of a run in memory. Steps under way change their status, and each change is followed by `advance`."""

    graph: Graph
    outcomes: Outcomes
    random: Random
    status: str = RunStatus.PENDING
    statuses: dict[str, StepStatus] = field(init=False)
    detours: Counter[str] = field(default_factory=Counter)
    started: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    events: list[EventType] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.statuses = {step.id: StepStatus.PENDING for step in self.graph.steps}

    def under_way(self) -> list[str]:
        return [step_id for step_id, status in self.statuses.items() if status in UNDER_WAY]

    def write(self, decided: Advance) -> None:
        """Apply a decision, and check the invariants of every decision."""
        self.statuses.update(dict.fromkeys(decided.reset, StepStatus.PENDING))
        for step_id in decided.start:
            assert self.statuses[step_id] == StepStatus.PENDING
            assert all(self.statuses[ancestor] == StepStatus.COMPLETED for ancestor in self.graph.ancestors[step_id])
        for step_id in (*decided.skip, *decided.cancel):
            assert self.statuses[step_id] == StepStatus.PENDING
        assert (decided.event is not None) is (decided.status in RUN_TERMINAL and self.status != decided.status)
        self.statuses.update(decided.changes)
        self.status = decided.status
        self.started += decided.start
        self.skipped |= decided.skip
        self.events += [decided.event] if decided.event else []

    def advance(self) -> None:
        """Advance, and check that a second call changes nothing."""
        self.write(advance(self.graph, self.status, self.statuses))
        assert advance(self.graph, self.status, self.statuses) == Advance(RunStatus(self.status))
        assert (self.status in RUN_TERMINAL) or self.under_way()

    def report(self) -> None:
        """Change at least one of the steps under way: one transaction may change several."""
        under_way = self.under_way()
        for step_id in self.random.sample(under_way, self.random.randint(1, len(under_way))):
            if self.detours[step_id] < 2 and self.random.random() < 0.5:
                self.detours[step_id] += 1  # its task runs, or starts another attempt
                self.statuses[step_id] = self.random.choice([StepStatus.PROCESSING, StepStatus.QUEUED])
            else:
                self.statuses[step_id] = self.outcomes[step_id]

    def to_end(self) -> "RunSimulation":
        self.advance()
        while self.under_way():
            self.report()
            for _ in range(self.random.randint(1, 2)):
                self.advance()
        return self

    def partially(self) -> "RunSimulation":
        self.advance()
        for _ in range(self.random.randint(0, 8)):
            if self.under_way():
                self.report()
                self.advance()
        return self

    def steps_in(self, *wanted: StepStatus) -> set[str]:
        return {step_id for step_id, status in self.statuses.items() if status in wanted}


@st.composite
def scenarios(draw: st.DrawFn, on_failure: st.SearchStrategy[OnFailure] = ON_FAILURE) -> Scenario:
    """Generate a graph of 1 to 10 steps, in any order in the request, and their outcomes."""
    ids = [f"s{number}" for number in range(draw(st.integers(1, 10)))]
    steps = [
        StepSpec(
            id=step_id,
            action="m:t",
            depends_on=tuple(draw(st.lists(st.sampled_from(ids[:at]), max_size=3, unique=True))) if at else (),
            on_failure=draw(on_failure),
        )
        for at, step_id in enumerate(ids)
    ]
    statuses = st.sampled_from([StepStatus.COMPLETED] * 3 + [StepStatus.FAILED, StepStatus.CANCELLED])
    outcomes = {step_id: draw(statuses) for step_id in ids}
    return check_graph(draw(st.permutations(steps))), outcomes


def all_completed(graph: Graph) -> Outcomes:
    return {step.id: StepStatus.COMPLETED for step in graph.steps}


def descendants_of(graph: Graph, step_ids: set[str]) -> set[str]:
    return set[str]().union(*(graph.descendants[step_id] for step_id in step_ids))


@given(scenarios(), RANDOMS)
def test_every_run_ends_and_starts_each_step_at_most_once(scenario: Scenario, random: Random) -> None:
    simulation = RunSimulation(*scenario, random).to_end()
    assert simulation.status in RUN_TERMINAL
    assert len(simulation.started) == len(set(simulation.started))
    assert set(simulation.statuses.values()) <= STEP_TERMINAL
    assert set(simulation.started) == simulation.steps_in(*STEP_TERMINAL - {StepStatus.SKIPPED})


@given(scenarios(), RANDOMS)
def test_the_end_of_a_run_agrees_with_its_steps_and_has_one_event(scenario: Scenario, random: Random) -> None:
    simulation = RunSimulation(*scenario, random).to_end()
    completed = simulation.steps_in(StepStatus.COMPLETED) == set(simulation.statuses)
    assert simulation.status == (RunStatus.COMPLETED if completed else RunStatus.FAILED)
    assert simulation.events == [EventType.RUN_COMPLETED if completed else EventType.RUN_FAILED]
    assert completed is not bool(simulation.steps_in(*UNSUCCESSFUL))


@given(scenarios(), RANDOMS)
def test_a_skipped_step_has_a_failed_ancestor_or_was_stopped_by_a_failed_step(
    scenario: Scenario, random: Random
) -> None:
    simulation = RunSimulation(*scenario, random).to_end()
    failed, skipped = simulation.steps_in(*UNSUCCESSFUL), simulation.steps_in(StepStatus.SKIPPED)
    stopping = {step.id for step in simulation.graph.steps if step.on_failure == OnFailure.STOP} & failed
    descendants = descendants_of(simulation.graph, failed)
    assert descendants <= skipped
    assert skipped == descendants or stopping
    assert set(simulation.skipped) == skipped
    for step_id, cause in simulation.skipped.items():
        assert cause in (simulation.graph.ancestors[step_id] & failed) | stopping


@given(scenarios(on_failure=st.just(OnFailure.CONTINUE)), RANDOMS, RANDOMS)
def test_with_continue_everywhere_every_order_has_the_same_outcome(
    scenario: Scenario, random: Random, other: Random
) -> None:
    simulation, again = RunSimulation(*scenario, random).to_end(), RunSimulation(*scenario, other).to_end()
    assert (simulation.statuses, simulation.status) == (again.statuses, again.status)


@given(scenarios(), RANDOMS)
def test_after_a_failure_with_stop_no_step_starts(scenario: Scenario, random: Random) -> None:
    simulation = RunSimulation(*scenario, random)
    simulation.advance()
    while simulation.under_way():
        simulation.report()
        failed = simulation.steps_in(*UNSUCCESSFUL)
        stopped = any(step.id in failed and step.on_failure == OnFailure.STOP for step in simulation.graph.steps)
        before = len(simulation.started)
        simulation.advance()
        if stopped:
            assert len(simulation.started) == before
            assert not simulation.steps_in(StepStatus.PENDING)


@given(scenarios(), RANDOMS)
def test_a_retry_runs_exactly_the_failed_and_skipped_steps(scenario: Scenario, random: Random) -> None:
    simulation = RunSimulation(*scenario, random).to_end()
    if simulation.status == RunStatus.COMPLETED:
        return
    kept, unsuccessful = (
        simulation.steps_in(StepStatus.COMPLETED),
        simulation.steps_in(*UNSUCCESSFUL, StepStatus.SKIPPED),
    )
    simulation.started.clear()
    simulation.outcomes = all_completed(simulation.graph)
    decided = retry(simulation.graph, simulation.status, simulation.statuses)
    assert set(decided.reset) == unsuccessful
    assert decided.status == RunStatus.IN_PROGRESS
    simulation.write(decided)
    simulation.to_end()
    assert sorted(simulation.started) == sorted(unsuccessful)
    assert not kept & set(simulation.started)
    assert simulation.status == RunStatus.COMPLETED
    assert simulation.events == [EventType.RUN_FAILED, EventType.RUN_COMPLETED]


@given(scenarios(), RANDOMS)
def test_a_cancelled_run_starts_no_step_and_ignores_later_updates(scenario: Scenario, random: Random) -> None:
    simulation = RunSimulation(*scenario, random).partially()
    if simulation.status in RUN_TERMINAL:
        return
    waiting, running, started = (
        simulation.steps_in(StepStatus.PENDING),
        simulation.under_way(),
        list(simulation.started),
    )
    decided = cancel(simulation.graph, simulation.status, simulation.statuses)
    assert (set(decided.cancel), set(decided.recall)) == (waiting, set(running))
    simulation.write(decided)
    while simulation.under_way():
        simulation.report()
        simulation.write(advance(simulation.graph, simulation.status, simulation.statuses))
    assert (simulation.status, simulation.events) == (RunStatus.CANCELLED, [EventType.RUN_CANCELLED])
    assert simulation.started == started
    assert waiting <= simulation.steps_in(StepStatus.CANCELLED)
    assert cancel(simulation.graph, simulation.status, simulation.statuses) == Advance(RunStatus.CANCELLED)


@given(scenarios(), RANDOMS)
def test_a_cancelled_run_that_is_retried_ends(scenario: Scenario, random: Random) -> None:
    simulation = RunSimulation(*scenario, random).partially()
    if simulation.status in RUN_TERMINAL:
        return
    simulation.write(cancel(simulation.graph, simulation.status, simulation.statuses))
    for _ in range(random.randint(0, 2)):
        if simulation.under_way():
            simulation.report()
    kept = simulation.steps_in(StepStatus.COMPLETED, *UNDER_WAY)
    simulation.outcomes = all_completed(simulation.graph)
    simulation.started.clear()
    simulation.write(retry(simulation.graph, simulation.status, simulation.statuses))
    simulation.to_end()
    assert simulation.status == RunStatus.COMPLETED
    assert sorted(simulation.started) == sorted(set(simulation.statuses) - kept)


@given(scenarios(), st.data())
def test_from_any_statuses_a_second_advance_changes_nothing(scenario: Scenario, data: st.DataObject) -> None:
    graph, _ = scenario
    statuses = {step.id: data.draw(st.sampled_from(StepStatus)) for step in graph.steps}
    status = data.draw(st.sampled_from([RunStatus.PENDING, RunStatus.IN_PROGRESS]))
    decided = advance(graph, status, statuses)
    then = {**statuses, **decided.changes}
    assert set(decided.changes) <= {step_id for step_id, each in statuses.items() if each == StepStatus.PENDING}
    assert (decided.status in RUN_TERMINAL) is (set(then.values()) <= STEP_TERMINAL)
    assert (decided.status in RUN_TERMINAL) is not bool(UNDER_WAY & set(then.values()))
    assert advance(graph, decided.status, then) == Advance(decided.status)
