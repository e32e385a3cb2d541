"""Advances runs, in the transaction of the change that their steps follow from.

Why in the same transaction. A step's task completes, and the next step has to start: if a separate scheduler did that
after the commit, a crash in between would leave a run that nothing advances, and a scan for such runs would be needed.
Here the update of the task, the step's new status, the tasks of the next steps and the run's event are written
together or not at all. So a committed run is always advanced as far as its steps allow, whichever process applied the
update, and no process has to look for runs. The rules are in `receiver.domain.advance`: they depend only on the
present states of the steps, so it does no harm to ask them more than once.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from models import STEP_TERMINAL, EventType, RunStatus, StepStatus, Submission, TaskStatus
from receiver.domain.actions import Action, build_input, read_result
from receiver.domain.advance import STEP_OF, Advance, advance, heal
from receiver.domain.graph import Graph, StepSpec
from receiver.domain.ids import new_id
from receiver.domain.references import UnresolvedReference, mapped_input
from receiver.domain.run_representations import native_run
from receiver.domain.steps import Definition
from receiver.domain.task_state import TaskState
from receiver.errors import BadRequest
from receiver.events.after_commit import WakeTimer
from receiver.events.record import task_created
from receiver.storage.runs import insert_runs, lock_runs, write_runs
from receiver.storage.tasks import new_task, outcomes_of
from receiver.storage.transaction import NewEvent, Transaction
from receiver.telemetry.log import get_logger

log = get_logger("runs.advance")

_DIGITS = 3
_OUTCOME: Mapping[str, str] = {
    TaskStatus.COMPLETED: "output",
    TaskStatus.FAILED: "error",
    TaskStatus.CANCELLED: "error",
}
"""The column of a task that its step needs, by how the task ended."""

Plan = Callable[[Graph, str, Mapping[str, str]], Advance]
"""A rule of `receiver.domain.advance`: from a graph, the run's status and its steps' statuses to what changes."""


Choose = Callable[[int, str, str | None], int | None]
"""Returns the row key of the account that an organization's task of a provider uses, with the name of one or None.

Raises `BadRequest` for a name that it may not use.
"""


def of_environment(_organization_id: int, _provider: str, _name: str | None) -> int | None:
    """Choose the account of the environment."""
    return None


class Advancer:
    """Advances runs and writes what changed. `due` wakes the worker that sends tasks to their providers."""

    def __init__(self, due: WakeTimer, choose: Choose = of_environment) -> None:
        self._due = due
        self.choose = choose

    async def apply_tasks(
        self, tx: Transaction, changed: Sequence[TaskState], now: datetime, written: Mapping[str, Mapping[str, Any]]
    ) -> list[NewEvent]:
        """Apply changed tasks to the steps that they belong to, and advance their runs; return the events to record.

        `written` has the columns of each task that this transaction has written, by the task's id.
        """
        of_runs: dict[str, list[TaskState]] = {}
        for task in changed:
            if task.run_uid is not None:
                of_runs.setdefault(task.run_uid, []).append(task)
        outcomes = await _outcomes(tx, changed, written)
        changes = [RunChange(run, now, self.choose) for run in await lock_runs(tx, of_runs)]
        for change in changes:
            for task in of_runs[change.run["uid"]]:
                change.apply_task(task, outcomes.get(task.uid, {}))
            if change.is_corrected:
                change.apply_correction()
            else:
                change.apply_plan(advance)
        return await self.write(tx, changes, now)

    async def write(self, tx: Transaction, changes: Sequence["RunChange"], now: datetime) -> list[NewEvent]:
        """Write changed runs and steps, and insert new tasks; return the events to record."""
        await write_runs(
            tx,
            [change.run for change in changes if change.is_changed],
            [step for change in changes for step in change.changed_steps],
            now,
        )
        return await self._start(tx, changes, now)

    async def insert(self, tx: Transaction, changes: Sequence["RunChange"], now: datetime) -> list[NewEvent]:
        """Insert new runs as they are after their first changes, with their tasks; return the events to record."""
        await insert_runs(tx, [change.run for change in changes])
        return await self._start(tx, changes, now)

    async def _start(self, tx: Transaction, changes: Sequence["RunChange"], now: datetime) -> list[NewEvent]:
        """Insert the tasks of steps that start, and wake their sender; return the events to record."""
        rows = [row for change in changes for row in change.tasks]
        keys = dict(zip((row["uid"] for row in rows), await tx.insert_tasks(rows), strict=True)) if rows else {}
        if rows:
            tx.after_commit.append(lambda: self._due.set(now))
        for change in changes:
            if change.has_ended:
                tx.after_commit.append(change.log_end)
        return [event for change in changes for event in change.events(keys)]


class RunChange:
    """One locked run and what changes of it; `run` is a row with its `steps`, as `storage.runs.lock_runs` returns it.

    `run` and its steps are modified in place, so that each call sees what the calls before it changed.
    """

    def __init__(self, run: dict[str, Any], now: datetime, choose: Choose) -> None:
        self._choose = choose
        self.run = run
        self.now = now
        self.tasks: list[dict[str, Any]] = []
        """The rows of new tasks, one for each step that starts."""
        self.recall: tuple[str, ...] = ()
        """The ids of tasks that are cancelled with the run, at once or by their provider."""
        self.is_changed = False
        self.is_corrected = False
        """Whether a step that had failed has completed, or the result of a completed step has changed."""
        definition: Definition = run["definition"]
        self._graph = definition.graph
        self._actions = definition.actions
        self._specs = {step.id: step for step in definition.graph.steps}
        self._steps: dict[str, dict[str, Any]] = {step["name"]: step for step in run["steps"]}
        self._changed: set[str] = set()
        self._event: EventType | None = None
        self._corrects: str | None = None

    @property
    def changed_steps(self) -> list[dict[str, Any]]:
        """The rows of the steps that changed."""
        return [step for name, step in self._steps.items() if name in self._changed]

    @property
    def has_ended(self) -> bool:
        """Whether there is an event that the run has ended."""
        return self._event is not None

    def log_end(self) -> None:
        """Write a log record of the run's end. Called after the commit."""
        failed = [step["name"] for step in self.run["steps"] if step["status"] == StepStatus.FAILED]
        log.info(
            "run ended",
            run_id=self.run["uid"],
            state=self.run["status"],
            steps=len(self.run["steps"]),
            failed_steps=failed,
            seconds=round((self.now - self.run["created_at"]).total_seconds(), _DIGITS),
        )

    def apply_task(self, task: TaskState, outcome: Mapping[str, Any]) -> None:
        """Set a step's status, result and error from its task.

        `outcome` has the `output` and `error` of a task that ended. A task that is no longer the step's own (the run
        was retried and the step has another task now) changes nothing.
        """
        step = self._steps.get(str(task.step))
        if step is None or step["task_uid"] != task.uid:
            return
        if step["status"] == STEP_OF[task.status]:
            self._apply_late_result(step, task, outcome)
            return
        self.is_corrected |= (step["status"], task.status) == (StepStatus.FAILED, TaskStatus.COMPLETED)
        values: dict[str, Any] = {"status": STEP_OF[task.status], "result": None, "error": None, "completed_at": None}
        if values["status"] in STEP_TERMINAL:
            values["completed_at"] = self.now
        if values["status"] == StepStatus.COMPLETED:
            values["result"] = self._result(step, task, outcome)
        elif task.status in (TaskStatus.FAILED, TaskStatus.CANCELLED):
            values["error"] = outcome.get("error") or {"code": task.status, "message": f"the task was {task.status}"}
        self._change(step, values)

    def _apply_late_result(self, step: dict[str, Any], task: TaskState, outcome: Mapping[str, Any]) -> None:
        """Set the result of a step that completed before its task had one."""
        if task.status == TaskStatus.COMPLETED and (result := self._result(step, task, outcome)) != step["result"]:
            self._change(step, {"result": result})
            self.is_corrected = True

    def apply_correction(self) -> None:
        """Start what did not start for want of a result that has come now; a run that had failed goes on with it.

        A run that failed and can start nothing more keeps its end, and has no second event for it.
        """
        status, ended_at, ended_event = (self.run[name] for name in ("status", "ended_at", "ended_event"))
        for step in self._steps.values() if status != RunStatus.CANCELLED else ():
            if step["status"] == StepStatus.FAILED and step["task_uid"] is None:  # its input could not be made
                self._change(step, {"status": StepStatus.SKIPPED})
        self.apply_plan(heal)
        if self.run["status"] == status == RunStatus.FAILED and not self.tasks:
            self._event = None
            self.run |= {"ended_at": ended_at, "ended_event": ended_event}

    def apply_plan(self, plan: Plan) -> None:
        """Apply what `plan` decides for the run as it is now, until nothing more follows from it."""
        decided = plan(self._graph, self.run["status"], {name: step["status"] for name, step in self._steps.items()})
        self._set_status(decided)
        self.recall += tuple(self._steps[name]["task_uid"] for name in decided.recall)
        for name in decided.reset:
            self._change(self._steps[name], {**_NOT_STARTED, "status": StepStatus.PENDING})
        for name, cause in decided.skip.items():
            self._end(name, StepStatus.SKIPPED, "skipped", f"step {cause!r} did not complete")
        for name in decided.cancel:
            self._end(name, StepStatus.CANCELLED, "cancelled", "the run was cancelled before this step started")
        started = [self._start(name) for name in decided.start]
        if not all(started):  # a step whose input could not be made has failed: more may follow from that
            self.apply_plan(advance)

    def events(self, keys: Mapping[str, int]) -> list[NewEvent]:
        """Return the events of the new tasks and of the run; `keys` are the new tasks' row keys by their ids."""
        found = [task_created(row, keys[row["uid"]], self.now) for row in self.tasks]
        if self._event is not None:
            event = run_event(self.run, self._event, self.now)
            event.uid = self.run["ended_event"]
            if self._corrects is not None:
                event.snapshot["corrects"] = self._corrects
            found.append(event)
        return found

    def _set_status(self, decided: Advance) -> None:
        if decided.is_retry:
            self.run["ended_event"] = None
        if decided.event is not None:
            if self._event is None:
                self._corrects = self.run["ended_event"]
            self._event = decided.event
            self.run["ended_event"] = new_id()
        if decided.status != self.run["status"]:
            ended_at = self.now if decided.event is not None else None
            self.run |= {"status": decided.status, "ended_at": ended_at}
        self.run["updated_at"] = self.now
        self.is_changed = True

    def _start(self, name: str) -> bool:
        """Make the row of the step's task; fail the step if its input cannot be made, or its account is not there.

        Return whether it was made.
        """
        step = self._steps[name]
        spec, action = self._specs[name], self._actions[name]
        results = {each: other["result"] for each, other in self._steps.items() if other["result"] is not None}
        metadata = self.run["metadata"] or {}
        try:
            given = mapped_input(spec.input, spec.input_map, results=results, metadata=metadata)
            account_id = self._choose(self.run["organization_id"], action.provider, action.account)
        except (UnresolvedReference, BadRequest) as error:
            self._end(name, StepStatus.FAILED, str(error.code), error.message)
            return False
        row = {**_new_task(self.run, spec, action, build_input(action, given), self.now), "account_id": account_id}
        self.tasks.append(row)
        started = {"status": StepStatus.QUEUED, "task_uid": row["uid"], "started_at": self.now}
        self._change(step, {**_NOT_STARTED, **started})
        return True

    def _result(self, step: Mapping[str, Any], task: TaskState, outcome: Mapping[str, Any]) -> dict[str, Any]:
        return read_result(self._actions[step["name"]], outcome.get("output"), task_id=task.uid)

    def _end(self, name: str, status: StepStatus, code: str, message: str) -> None:
        error = {"code": code, "message": message}
        self._change(self._steps[name], {"status": status, "error": error, "completed_at": self.now})

    def _change(self, step: dict[str, Any], values: Mapping[str, Any]) -> None:
        step |= values
        self._changed.add(step["name"])


_NOT_STARTED = {"task_uid": None, "result": None, "error": None, "started_at": None, "completed_at": None}


def run_event(run: Mapping[str, Any], type: EventType, now: datetime) -> NewEvent:
    """Return an event of a run; its snapshot is the run at this moment, as the API shows it."""
    return NewEvent(
        uid=new_id(),
        organization_id=run["organization_id"],
        task_id=None,
        task_uid=None,
        type=type,
        snapshot=native_run(run, run["steps"]),
        created_at=now,
        run_uid=run["uid"],
        metadata=run["metadata"],
    )


async def _outcomes(
    tx: Transaction, changed: Sequence[TaskState], written: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Return the output or the error of each task that ended; what was not written just now is read."""
    ended = [task for task in changed if STEP_OF[task.status] in STEP_TERMINAL]
    found = {task.uid: written[task.uid] for task in ended if _OUTCOME[task.status] in written[task.uid]}
    unwritten = [task.uid for task in ended if task.uid not in found]
    return {**found, **(await outcomes_of(tx, unwritten) if unwritten else {})}


def _new_task(
    run: Mapping[str, Any], step: StepSpec, action: Action, given: dict[str, Any], now: datetime
) -> dict[str, Any]:
    return new_task(
        uid=new_id(),
        organization_id=run["organization_id"],
        provider=action.provider,
        model=action.model,
        task_type=action.task_type,
        input=given,
        submission=Submission.WAITING,
        now=now,
        metadata=run["metadata"],
        run_uid=run["uid"],
        step=step.id,
        trace_context=run["trace_context"],
        max_attempts=step.max_attempts,
        backoff_seconds=step.backoff_seconds,
    )
