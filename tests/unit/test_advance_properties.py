"""Runs of any graph, with any outcomes, told in any order and more than once."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from models import RUN_TERMINAL, STEP_TERMINAL, EventType, RunStatus, StepStatus
from receiver.domain.advance import UNDER_WAY, Advance, advance, cancel, retry
from receiver.domain.graph import Graph, OnFailure, StepSpec, check_graph

PATIENT = settings(deadline=None)
RANDOMS = st.randoms(use_true_random=False)
EITHER = st.sampled_from(OnFailure)
UNSUCCESSFUL = (StepStatus.FAILED, StepStatus.CANCELLED)
Outcomes = Mapping[str, StepStatus]
Story = tuple[Graph, Outcomes]
"""A graph, and what each of its steps comes to if it is begun."""


@dataclass
class Play:
    """A run's rows in memory, played to its end; what is told is written down and followed by `advance`."""

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
        """Write down what was decided, and check what must hold of every decision."""
        self.statuses.update(dict.fromkeys(decided.reset, StepStatus.PENDING))
        for step_id in decided.start:
            assert self.statuses[step_id] == StepStatus.PENDING
            assert all(self.statuses[above] == StepStatus.COMPLETED for above in self.graph.ancestors[step_id])
        for step_id in (*decided.skip, *decided.cancel):
            assert self.statuses[step_id] == StepStatus.PENDING
        assert (decided.event is not None) is (decided.status in RUN_TERMINAL and self.status != decided.status)
        self.statuses.update(decided.changes)
        self.status = decided.status
        self.started += decided.start
        self.skipped |= decided.skip
        self.events += [decided.event] if decided.event else []

    def advance(self) -> None:
        """Advance, and see that once is enough."""
        self.write(advance(self.graph, self.status, self.statuses))
        assert advance(self.graph, self.status, self.statuses) == Advance(RunStatus(self.status))
        assert (self.status in RUN_TERMINAL) or self.under_way()

    def tell(self) -> None:
        """Tell something of one to all of the steps that are under way: several come in one transaction."""
        ready = self.under_way()
        for step_id in self.random.sample(ready, self.random.randint(1, len(ready))):
            if self.detours[step_id] < 2 and self.random.random() < 0.5:
                self.detours[step_id] += 1  # it runs, or its task is tried again
                self.statuses[step_id] = self.random.choice([StepStatus.PROCESSING, StepStatus.QUEUED])
            else:
                self.statuses[step_id] = self.outcomes[step_id]

    def to_the_end(self) -> "Play":
        self.advance()
        while self.under_way():
            self.tell()
            for _ in range(self.random.randint(1, 2)):
                self.advance()
        return self

    def for_a_while(self) -> "Play":
        self.advance()
        for _ in range(self.random.randint(0, 8)):
            if self.under_way():
                self.tell()
                self.advance()
        return self

    def those(self, *words: StepStatus) -> set[str]:
        return {step_id for step_id, status in self.statuses.items() if status in words}


@st.composite
def stories(draw: st.DrawFn, on_failure: st.SearchStrategy[OnFailure] = EITHER) -> Story:
    """A graph of 1 to 10 steps, in any order in the request, and their outcomes."""
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
    words = st.sampled_from([StepStatus.COMPLETED] * 3 + [StepStatus.FAILED, StepStatus.CANCELLED])
    outcomes = {step_id: draw(words) for step_id in ids}
    return check_graph(draw(st.permutations(steps))), outcomes


def all_well(graph: Graph) -> Outcomes:
    return {step.id: StepStatus.COMPLETED for step in graph.steps}


def below(graph: Graph, step_ids: set[str]) -> set[str]:
    return set[str]().union(*(graph.descendants[step_id] for step_id in step_ids))


@PATIENT
@given(stories(), RANDOMS)
def test_every_run_ends_and_starts_each_step_at_most_once(story: Story, random: Random) -> None:
    play = Play(*story, random).to_the_end()
    assert play.status in RUN_TERMINAL
    assert len(play.started) == len(set(play.started))
    assert set(play.statuses.values()) <= STEP_TERMINAL
    assert set(play.started) == play.those(*STEP_TERMINAL - {StepStatus.SKIPPED})


@PATIENT
@given(stories(), RANDOMS)
def test_a_runs_end_fits_its_steps_and_is_told_once(story: Story, random: Random) -> None:
    play = Play(*story, random).to_the_end()
    completed = play.those(StepStatus.COMPLETED) == set(play.statuses)
    assert play.status == (RunStatus.COMPLETED if completed else RunStatus.FAILED)
    assert play.events == [EventType.RUN_COMPLETED if completed else EventType.RUN_FAILED]
    assert completed is not bool(play.those(*UNSUCCESSFUL))


@PATIENT
@given(stories(), RANDOMS)
def test_what_is_skipped_stands_below_a_failed_step_or_was_stopped_by_one(story: Story, random: Random) -> None:
    play = Play(*story, random).to_the_end()
    failed, skipped = play.those(*UNSUCCESSFUL), play.those(StepStatus.SKIPPED)
    stoppers = {step.id for step in play.graph.steps if step.on_failure == OnFailure.STOP} & failed
    lost = below(play.graph, failed)
    assert lost <= skipped
    assert skipped == lost or stoppers
    assert set(play.skipped) == skipped
    for step_id, cause in play.skipped.items():
        assert cause in (play.graph.ancestors[step_id] & failed) | stoppers


@PATIENT
@given(stories(on_failure=st.just(OnFailure.CONTINUE)), RANDOMS, RANDOMS)
def test_where_all_continue_every_order_comes_to_the_same(story: Story, random: Random, other: Random) -> None:
    play, again = Play(*story, random).to_the_end(), Play(*story, other).to_the_end()
    assert (play.statuses, play.status) == (again.statuses, again.status)


@PATIENT
@given(stories(), RANDOMS)
def test_a_stop_is_a_stop(story: Story, random: Random) -> None:
    play = Play(*story, random)
    play.advance()
    while play.under_way():
        play.tell()
        failed = play.those(*UNSUCCESSFUL)
        stopped = any(step.id in failed and step.on_failure == OnFailure.STOP for step in play.graph.steps)
        before = len(play.started)
        play.advance()
        if stopped:
            assert len(play.started) == before
            assert not play.those(StepStatus.PENDING)


@PATIENT
@given(stories(), RANDOMS)
def test_a_retry_does_again_exactly_what_failed_and_was_skipped(story: Story, random: Random) -> None:
    play = Play(*story, random).to_the_end()
    if play.status == RunStatus.COMPLETED:
        return
    kept, lost = play.those(StepStatus.COMPLETED), play.those(*UNSUCCESSFUL, StepStatus.SKIPPED)
    play.started.clear()
    play.outcomes = all_well(play.graph)
    decided = retry(play.graph, play.status, play.statuses)
    assert set(decided.reset) == lost
    assert decided.status == RunStatus.IN_PROGRESS
    play.write(decided)
    play.to_the_end()
    assert sorted(play.started) == sorted(lost)
    assert not kept & set(play.started)
    assert play.status == RunStatus.COMPLETED
    assert play.events == [EventType.RUN_FAILED, EventType.RUN_COMPLETED]


@PATIENT
@given(stories(), RANDOMS)
def test_a_cancelled_run_begins_nothing_more_and_ignores_what_is_left(story: Story, random: Random) -> None:
    play = Play(*story, random).for_a_while()
    if play.status in RUN_TERMINAL:
        return
    waiting, running, began = play.those(StepStatus.PENDING), play.under_way(), list(play.started)
    decided = cancel(play.graph, play.status, play.statuses)
    assert (set(decided.cancel), set(decided.recall)) == (waiting, set(running))
    play.write(decided)
    while play.under_way():
        play.tell()
        play.write(advance(play.graph, play.status, play.statuses))
    assert (play.status, play.events) == (RunStatus.CANCELLED, [EventType.RUN_CANCELLED])
    assert play.started == began
    assert waiting <= play.those(StepStatus.CANCELLED)
    assert cancel(play.graph, play.status, play.statuses) == Advance(RunStatus.CANCELLED)


@PATIENT
@given(stories(), RANDOMS)
def test_a_cancelled_run_that_is_retried_comes_to_its_end(story: Story, random: Random) -> None:
    play = Play(*story, random).for_a_while()
    if play.status in RUN_TERMINAL:
        return
    play.write(cancel(play.graph, play.status, play.statuses))
    for _ in range(random.randint(0, 2)):
        if play.under_way():
            play.tell()
    kept = play.those(StepStatus.COMPLETED, *UNDER_WAY)
    play.outcomes = all_well(play.graph)
    play.started.clear()
    play.write(retry(play.graph, play.status, play.statuses))
    play.to_the_end()
    assert play.status == RunStatus.COMPLETED
    assert sorted(play.started) == sorted(set(play.statuses) - kept)


@PATIENT
@given(stories(), st.data())
def test_from_any_states_whatever_one_advance_is_enough(story: Story, data: st.DataObject) -> None:
    graph, _ = story
    statuses = {step.id: data.draw(st.sampled_from(StepStatus)) for step in graph.steps}
    status = data.draw(st.sampled_from([RunStatus.PENDING, RunStatus.IN_PROGRESS]))
    decided = advance(graph, status, statuses)
    then = {**statuses, **decided.changes}
    assert set(decided.changes) <= {step_id for step_id, word in statuses.items() if word == StepStatus.PENDING}
    assert (decided.status in RUN_TERMINAL) is (set(then.values()) <= STEP_TERMINAL)
    assert (decided.status in RUN_TERMINAL) is not bool(UNDER_WAY & set(then.values()))
    assert advance(graph, decided.status, then) == Advance(decided.status)
