"""The state machine of a run: which steps start, which are skipped, and when the run ends.

`advance` depends only on the present states of the steps, not on how they were reached, and it is idempotent: once its
result is written, calling it again returns no further change. So it is safe to call it after every change of a step,
and it is called in the transaction of that change.

A step has the state of its task (`STEP_OF`), the one correction `failed → completed` included. With a correction, and
with a result that comes after its step completed, the run is corrected too (`heal`): the steps that were skipped for it
start, and a run that had failed goes on. `retry` does the same at a client's request, and runs failed steps again.
"""

from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

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
"""The status of a step by the status of its task. A task that has not begun at the provider is a queued step."""
ENDING: Mapping[RunStatus, EventType] = {
    RunStatus.COMPLETED: EventType.RUN_COMPLETED,
    RunStatus.FAILED: EventType.RUN_FAILED,
    RunStatus.CANCELLED: EventType.RUN_CANCELLED,
}
"""The terminal states of a run, and the event that it writes when it enters each."""
UNSUCCESSFUL = frozenset({StepStatus.FAILED, StepStatus.CANCELLED})
"""The states of a step that fail its run. A step whose task was cancelled has no result, so it counts as failed."""
RETRYABLE = UNSUCCESSFUL | {StepStatus.SKIPPED}
"""The states of the steps that `retry` resets."""
UNDER_WAY = frozenset(StepStatus) - STEP_TERMINAL - {StepStatus.PENDING}
"""The states of a step whose task exists and has not ended."""
Statuses = Mapping[str, str]
"""The status of each step, by its id."""


class Advance(Struct, frozen=True):
    """What to write and to do. Step ids are in the order of the request.

    `status` is the status of the run, and `event` the event of its end.
    `reset` steps become pending again; their tasks, results and errors are detached from them.
    `start` steps get a task. If the input of one cannot be built, the caller fails it instead and advances again.
    `skip` steps never start; each id is mapped to the id of the step that is the cause.
    `cancel` steps have not started.
    `recall` steps are under way: a task that waits to be sent is cancelled; for the others their provider is asked,
    and may refuse.
    `is_retry`: whether the next end of the run corrects no earlier one, because the client asked for it.
    """

    status: RunStatus
    event: EventType | None = None
    reset: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    skip: Mapping[str, str] = field(default_factory=dict)
    cancel: tuple[str, ...] = ()
    recall: tuple[str, ...] = ()
    is_retry: bool = False

    @property
    def changes(self) -> dict[str, StepStatus]:
        """The new status of each step whose status changes, by its id."""
        return {
            **dict.fromkeys(self.reset, StepStatus.PENDING),
            **dict.fromkeys(self.start, StepStatus.QUEUED),
            **dict.fromkeys(self.skip, StepStatus.SKIPPED),
            **dict.fromkeys(self.cancel, StepStatus.CANCELLED),
        }


def advance(graph: Graph, status: str, statuses: Statuses) -> Advance:
    """Return what follows from a run's `status` and its steps' `statuses`: nothing for a run that has ended."""
    if status in RUN_TERMINAL:
        return Advance(RunStatus(status))
    skip = _steps_to_skip(graph, statuses)
    then = {**statuses, **dict.fromkeys(skip, StepStatus.SKIPPED)}
    ends_as = _terminal_status(then)
    if ends_as is not None:
        return Advance(ends_as, ENDING[ends_as], skip=skip)
    return Advance(RunStatus.IN_PROGRESS, start=_steps_to_start(graph, then), skip=skip)


def cancel(graph: Graph, status: str, statuses: Statuses) -> Advance:
    """Return what cancelling a run changes: the run ends at once, and later updates of its tasks do not change it.

    For a run that is cancelled already, it only repeats `recall`. Raises `Conflict` for a run that ended
    otherwise.
    """
    if status in RUN_TERMINAL and status != RunStatus.CANCELLED:
        raise Conflict(f"the run is {status}: only a run that has not ended can be cancelled")
    return Advance(
        RunStatus.CANCELLED,
        EventType.RUN_CANCELLED if status != RunStatus.CANCELLED else None,
        cancel=_steps_in(graph, statuses, frozenset({StepStatus.PENDING})),
        recall=_steps_in(graph, statuses, UNDER_WAY),
    )


def retry(graph: Graph, status: str, statuses: Statuses) -> Advance:
    """Return what retrying a run changes: failed, skipped and cancelled steps run again, the others stay.

    The steps that were under way when the run was cancelled stay too. Raises `Conflict` for a run that has neither
    failed nor been cancelled.
    """
    if status not in RUN_TERMINAL or status == RunStatus.COMPLETED:
        raise Conflict(f"the run is {status}: only a failed or cancelled run can be retried")
    reset = _steps_in(graph, statuses, RETRYABLE)
    then = {**statuses, **dict.fromkeys(reset, StepStatus.PENDING)}
    return replace(advance(graph, RunStatus.PENDING, then), reset=reset, is_retry=True)


def heal(graph: Graph, status: str, statuses: Statuses) -> Advance:
    """Return what follows when a step that had failed has completed after all, or has got its result late.

    `statuses` has the new state of the step. What was skipped for it may start. A run that completed tells its end once
    more, for the result is part of it. Nothing changes in a run that was cancelled.
    """
    if status == RunStatus.COMPLETED:
        return Advance(RunStatus.COMPLETED, EventType.RUN_COMPLETED)
    if status == RunStatus.CANCELLED:
        return Advance(RunStatus.CANCELLED)
    reset = _steps_in(graph, statuses, frozenset({StepStatus.SKIPPED}))
    then = {**statuses, **dict.fromkeys(reset, StepStatus.PENDING)}
    return replace(advance(graph, RunStatus.IN_PROGRESS, then), reset=reset)


def _steps_to_skip(graph: Graph, statuses: Statuses) -> dict[str, str]:
    """Return the pending steps that can no longer start, each with the step that is the cause.

    The cause is the first ancestor in topological order that failed, was cancelled or was skipped, so that a step names
    the one that failed and not another that was skipped because of it. Without such an ancestor it is the first
    unsuccessful step whose `on_failure` is `stop`.
    """
    if RETRYABLE.isdisjoint(statuses.values()):  # as for most runs: their order is not needed
        return {}
    unsuccessful = _steps_in(graph, statuses, UNSUCCESSFUL)
    stopping = next(
        (step.id for step in graph.steps if step.id in unsuccessful and step.on_failure == OnFailure.STOP), None
    )
    causes = [step_id for step_id in graph.order if statuses[step_id] in RETRYABLE]
    skip: dict[str, str] = {}
    for step_id in _steps_in(graph, statuses, frozenset({StepStatus.PENDING})):
        cause = next((each for each in causes if each in graph.ancestors[step_id]), stopping)
        if cause is not None:
            skip[step_id] = cause
    return skip


def _steps_to_start(graph: Graph, statuses: Statuses) -> tuple[str, ...]:
    return tuple(
        step.id
        for step in graph.steps
        if statuses[step.id] == StepStatus.PENDING
        and all(statuses[each] == StepStatus.COMPLETED for each in graph.dependencies[step.id])
    )


def _terminal_status(statuses: Statuses) -> RunStatus | None:
    present = set(statuses.values())
    if not present <= STEP_TERMINAL:
        return None
    return RunStatus.COMPLETED if present <= {StepStatus.COMPLETED} else RunStatus.FAILED


def _steps_in(graph: Graph, statuses: Statuses, wanted: frozenset[StepStatus]) -> tuple[str, ...]:
    return tuple(step.id for step in graph.steps if statuses[step.id] in wanted)
