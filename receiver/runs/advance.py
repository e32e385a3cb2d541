"""Moving runs on, in the transaction of whatever moved their steps: no scheduler can lag behind or lose it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from models import STEP_TERMINAL, EventType, StepStatus, Submission, TaskStatus
from receiver.domain.actions import Action, build_input, read_result
from receiver.domain.advance import STEP_OF, Advance, advance
from receiver.domain.graph import Graph, StepSpec
from receiver.domain.ids import new_id
from receiver.domain.references import UnresolvedReference, mapped_input
from receiver.domain.run_representations import native_run
from receiver.domain.steps import action_of, step_of
from receiver.domain.transitions import TaskState
from receiver.events.after_commit import WakeTimer
from receiver.events.record import task_created
from receiver.storage.runs import lock_runs, write_runs
from receiver.storage.tasks import new_task, outcomes_of
from receiver.storage.transaction import NewEvent, Transaction

Plan = Callable[[Graph, str, Mapping[str, str]], Advance]


class Advancer:
    """Moves runs on. `due` wakes whoever sends tasks to their providers."""

    def __init__(self, due: WakeTimer) -> None:
        self._due = due

    async def follow(self, tx: Transaction, changed: Sequence[TaskState], now: datetime) -> list[NewEvent]:
        """Let runs follow what became of their steps' tasks; return the events that come of it, to be recorded."""
        uids = {task.run_uid for task in changed if task.run_uid is not None}
        outputs = await _outputs(tx, changed)
        moves = [Move(run, now) for run in await lock_runs(tx, uids)]
        for move in moves:
            for task in changed:
                if task.run_uid == move.run["uid"]:
                    move.hear(task, outputs.get(task.uid, {}))
            move.go_on(advance)
        return await self.write(tx, moves, now)

    async def write(self, tx: Transaction, moves: Sequence["Move"], now: datetime) -> list[NewEvent]:
        """Write down what the moves came to: runs, steps, new tasks; return the events, to be recorded."""
        await write_runs(
            tx,
            [move.run for move in moves if move.is_changed],
            [step for move in moves for step in move.changed_steps],
            now,
        )
        rows = [row for move in moves for row in move.tasks]
        keys = dict(zip((row["uid"] for row in rows), await tx.insert_tasks(rows), strict=True)) if rows else {}
        if rows:
            tx.after_commit.append(lambda: self._due.set(now))
        return [event for move in moves for event in move.events(keys)]


class Move:
    """One run as it is moved on; `run` is a row with its `steps`, as `storage.runs.lock_runs` gives it."""

    def __init__(self, run: dict[str, Any], now: datetime) -> None:
        self.run = run
        self.now = now
        self.tasks: list[dict[str, Any]] = []
        self.recall: tuple[str, ...] = ()
        """The tasks that their provider is to be asked to cancel, once this is on disk."""
        self.is_changed = False
        self._graph = Graph(tuple(step_of(step["spec"]) for step in run["steps"]))
        self._steps: dict[str, dict[str, Any]] = {step["name"]: step for step in run["steps"]}
        self._changed: set[str] = set()
        self._event: EventType | None = None

    @property
    def changed_steps(self) -> list[dict[str, Any]]:
        """The rows of the steps that changed."""
        return [step for name, step in self._steps.items() if name in self._changed]

    def hear(self, task: TaskState, gave: Mapping[str, Any]) -> None:
        """Let a step follow its task; a task that its step let go of is heard no more."""
        step = self._steps.get(str(task.step))
        if step is None or step["task_uid"] != task.uid or step["status"] == STEP_OF[task.status]:
            return
        values: dict[str, Any] = {"status": STEP_OF[task.status], "result": None, "error": None, "completed_at": None}
        if values["status"] in STEP_TERMINAL:
            values["completed_at"] = self.now
        if values["status"] == StepStatus.COMPLETED:
            values["result"] = read_result(action_of(step["spec"]), gave.get("output"), task_id=task.uid)
        elif task.status in (TaskStatus.FAILED, TaskStatus.CANCELLED):
            values["error"] = gave.get("error") or {"code": task.status, "message": f"the task was {task.status}"}
        self._change(step, values)

    def go_on(self, plan: Plan) -> None:
        """Do what `plan` says of the run as it is now, and what follows from that."""
        ordered = plan(self._graph, self.run["status"], {name: step["status"] for name, step in self._steps.items()})
        self._set_status(ordered)
        self.recall += tuple(self._steps[name]["task_uid"] for name in ordered.recall)
        for name in ordered.reset:
            self._change(self._steps[name], {**_UNBEGUN, "status": StepStatus.PENDING})
        for name, blamed in ordered.skip.items():
            self._end(name, StepStatus.SKIPPED, "skipped", f"step {blamed!r} did not complete")
        for name in ordered.cancel:
            self._end(name, StepStatus.CANCELLED, "cancelled", "the run was cancelled before it began")
        begun = [self._begin(name) for name in ordered.start]
        if not all(begun):
            self.go_on(advance)

    def events(self, keys: Mapping[str, int]) -> list[NewEvent]:
        """Return the events of the new tasks, whose keys these are, and of the run."""
        found = [task_created(row, keys[row["uid"]], self.now) for row in self.tasks]
        if self._event is not None:
            found.append(run_event(self.run, self._event, self.now))
        return found

    def _set_status(self, ordered: Advance) -> None:
        if ordered.event is not None:
            self._event = ordered.event
        if ordered.status != self.run["status"]:
            ended_at = self.now if ordered.event is not None else None
            self.run |= {"status": ordered.status, "ended_at": ended_at}
        self.run["updated_at"] = self.now
        self.is_changed = True

    def _begin(self, name: str) -> bool:
        """Make the step's task; say False if its input cannot be made: then it has failed."""
        step = self._steps[name]
        spec, action = step_of(step["spec"]), action_of(step["spec"])
        results = {each: other["result"] for each, other in self._steps.items() if other["result"] is not None}
        metadata = self.run["metadata"] or {}
        try:
            given = mapped_input(spec.input, spec.input_map, results=results, metadata=metadata)
        except UnresolvedReference as error:
            self._end(name, StepStatus.FAILED, str(error.code), error.message)
            return False
        row = _new_task(self.run, spec, action, build_input(action, given), self.now)
        self.tasks.append(row)
        self._change(step, {**_UNBEGUN, "status": StepStatus.QUEUED, "task_uid": row["uid"], "started_at": self.now})
        return True

    def _end(self, name: str, status: StepStatus, code: str, message: str) -> None:
        error = {"code": code, "message": message}
        self._change(self._steps[name], {"status": status, "error": error, "completed_at": self.now})

    def _change(self, step: dict[str, Any], values: Mapping[str, Any]) -> None:
        step |= values
        self._changed.add(step["name"])


_UNBEGUN = {"task_uid": None, "result": None, "error": None, "started_at": None, "completed_at": None}


def run_event(run: Mapping[str, Any], type: EventType, now: datetime) -> NewEvent:
    """Return an event of a run; its snapshot is the run as it then is, as the API gives it."""
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


async def _outputs(tx: Transaction, changed: Sequence[TaskState]) -> dict[str, dict[str, Any]]:
    ended = [task.uid for task in changed if STEP_OF[task.status] in STEP_TERMINAL]
    return await outcomes_of(tx, ended) if ended else {}


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
        max_attempts=step.max_attempts,
        backoff_seconds=step.backoff_seconds,
    )
