"""What becomes of a run when something became of its steps: who begins, who never will, and when it ends. Pure.

`advance` looks at the steps as they are, whatever happened to them and in which order; what it orders, once written
down, it never orders again. So it is asked after every change of a step, in the change's own transaction.

A step mirrors its task (`STEP_OF`), the one correction `failed → completed` included. What was skipped stays so, and
the first end of a run stands: whoever wants the rest says `retry`, which keeps what is completed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from models import RUN_TERMINAL, STEP_TERMINAL, EventType, RunStatus, StepStatus, TaskStatus
from receiver.domain.graph import Graph, OnFailure
from receiver.errors import Conflict

STEP_OF: Mapping[str, StepStatus] = {
    TaskStatus.QUEUED: StepStatus.QUEUED,
    TaskStatus.STAGED: StepStatus.QUEUED,
    TaskStatus.PENDING: StepStatus.QUEUED,
    TaskStatus.PROCESSING: StepStatus.PROCESSING,
    TaskStatus.COMPLETED: StepStatus.COMPLETED,
    TaskStatus.FAILED: StepStatus.FAILED,
    TaskStatus.CANCELLED: StepStatus.CANCELLED,
}
"""A step's state by its task's."""
ENDING: Mapping[RunStatus, EventType] = {
    RunStatus.COMPLETED: EventType.RUN_COMPLETED,
    RunStatus.FAILED: EventType.RUN_FAILED,
    RunStatus.CANCELLED: EventType.RUN_CANCELLED,
}
UNSUCCESSFUL = frozenset({StepStatus.FAILED, StepStatus.CANCELLED})
"""A step whose task was cancelled by itself gives no result either: to its run it has failed."""
RETRYABLE = UNSUCCESSFUL | {StepStatus.SKIPPED}
UNDER_WAY = frozenset(StepStatus) - STEP_TERMINAL - {StepStatus.PENDING}
Statuses = Mapping[str, str]
"""Each step's status by its id."""


@dataclass(frozen=True, slots=True)
class Advance:
    """What to write and to do. Ids are in the order of the request.

    `reset` steps are pending again; their tasks, results and errors are let go.
    `start` steps get a task. One whose input cannot be made fails instead: write that, and advance again.
    `skip` steps never begin; each names the step whose failure it is for.
    `cancel` steps had not begun.
    `recall` steps are under way: their provider is asked to cancel them, and may refuse.
    """

    status: RunStatus
    event: EventType | None = None
    reset: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    skip: Mapping[str, str] = field(default_factory=dict)
    cancel: tuple[str, ...] = ()
    recall: tuple[str, ...] = ()

    @property
    def changes(self) -> dict[str, StepStatus]:
        """The steps whose status changes, and to what."""
        return {
            **dict.fromkeys(self.reset, StepStatus.PENDING),
            **dict.fromkeys(self.start, StepStatus.QUEUED),
            **dict.fromkeys(self.skip, StepStatus.SKIPPED),
            **dict.fromkeys(self.cancel, StepStatus.CANCELLED),
        }


def advance(graph: Graph, status: str, statuses: Statuses) -> Advance:
    """Say what follows from a run's `status` and its steps' `statuses`. Of a run that has ended nothing does."""
    if status in RUN_TERMINAL:
        return Advance(RunStatus(status))
    skip = _skip(graph, statuses)
    then = {**statuses, **dict.fromkeys(skip, StepStatus.SKIPPED)}
    ends_as = _end(then)
    if ends_as is not None:
        return Advance(ends_as, ENDING[ends_as], skip=skip)
    return Advance(RunStatus.IN_PROGRESS, start=_ready(graph, then), skip=skip)


def cancel(graph: Graph, status: str, statuses: Statuses) -> Advance:
    """Say what cancelling a run does: it ends at once, and what is under way is its own affair.

    Asked again it ends nothing, and recalls what still is under way. Raises `Conflict` for a run that ended otherwise.
    """
    if status in RUN_TERMINAL and status != RunStatus.CANCELLED:
        raise Conflict(f"the run is {status}: only one that has not ended can be cancelled")
    return Advance(
        RunStatus.CANCELLED,
        EventType.RUN_CANCELLED if status != RunStatus.CANCELLED else None,
        cancel=_those(graph, statuses, frozenset({StepStatus.PENDING})),
        recall=_those(graph, statuses, UNDER_WAY),
    )


def retry(graph: Graph, status: str, statuses: Statuses) -> Advance:
    """Say what retrying a run does: what failed, was skipped or cancelled is done again, all else is kept.

    What a cancelled run left under way is kept too. Raises `Conflict` for a run that has neither failed nor been
    cancelled.
    """
    if status not in RUN_TERMINAL or status == RunStatus.COMPLETED:
        raise Conflict(f"the run is {status}: only one that failed or was cancelled can be retried")
    reset = _those(graph, statuses, RETRYABLE)
    then = {**statuses, **dict.fromkeys(reset, StepStatus.PENDING)}
    return replace(advance(graph, RunStatus.PENDING, then), reset=reset)


def _skip(graph: Graph, statuses: Statuses) -> dict[str, str]:
    """Return the steps that must not begin any more, each with the step that is to blame."""
    fruitless = _those(graph, statuses, UNSUCCESSFUL)
    stopper = next(
        (step.id for step in graph.steps if step.id in fruitless and step.on_failure == OnFailure.STOP), None
    )
    lost = [step_id for step_id in graph.order if statuses[step_id] in RETRYABLE]  # a cause before what it caused
    skip: dict[str, str] = {}
    for step_id in _those(graph, statuses, frozenset({StepStatus.PENDING})):
        cause = next((each for each in lost if each in graph.ancestors[step_id]), stopper)
        if cause is not None:
            skip[step_id] = cause
    return skip


def _ready(graph: Graph, statuses: Statuses) -> tuple[str, ...]:
    return tuple(
        step.id
        for step in graph.steps
        if statuses[step.id] == StepStatus.PENDING
        and all(statuses[each] == StepStatus.COMPLETED for each in graph.dependencies[step.id])
    )


def _end(statuses: Statuses) -> RunStatus | None:
    words = set(statuses.values())
    if not words <= STEP_TERMINAL:
        return None
    return RunStatus.COMPLETED if words <= {StepStatus.COMPLETED} else RunStatus.FAILED


def _those(graph: Graph, statuses: Statuses, words: frozenset[StepStatus]) -> tuple[str, ...]:
    return tuple(step.id for step in graph.steps if statuses[step.id] in words)
