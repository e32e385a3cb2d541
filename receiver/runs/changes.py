"""Changes of a run that a client requests, cancel and retry: each with the tasks of its steps, in one transaction.

The order of the locks. An update of a task locks the task, then the run that it advances. So a change of a run locks
the tasks of the steps under way first, in the order of their keys, then the run: neither can hold a lock that the other
waits for. A step may begin between the two locks; its task is then not locked, nothing is changed, and the change is
tried again in another transaction, which sees the task. Once the run is locked, no step of it begins or ends.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct, field

from models import TERMINAL
from receiver.clock import utc_now
from receiver.domain.advance import UNDER_WAY
from receiver.domain.steps import step_of
from receiver.domain.task_state import TaskState
from receiver.errors import NotFound, RingbackError
from receiver.events.after_commit import AfterCommit
from receiver.events.record import record
from receiver.runs.advance import Advancer, Plan, RunChange
from receiver.storage.runs import lock_runs, tasks_under_way
from receiver.storage.transaction import NewEvent, Transaction
from receiver.storage.writer import Writer
from receiver.telemetry.request_ids import current_request_id

RunRow = dict[str, Any]
"""The row of a run with its organization's outer id, and the rows of its steps as `steps`."""


class Asked(Struct, frozen=True):
    """A client's request to change a run as `plan` decides."""

    organization_id: int
    uid: str
    plan: Plan
    request_id: str | None = field(default_factory=current_request_id)


class StepTasks(Protocol):
    """Changes the tasks of a run's steps with the run. All that `receiver.runs` knows of `receiver.tracking`."""

    async def recall(self, tx: Transaction, tasks: Sequence[TaskState], now: datetime) -> list[NewEvent]:
        """Cancel locked tasks that wait to be sent, and make the others due for their recall; return the events."""
        ...

    async def resume(self, tx: Transaction, tasks: Sequence[tuple[TaskState, int]], now: datetime) -> None:
        """Give up the recalls of locked tasks; each again has the number of attempts that is given with it."""
        ...


class RunChanger:
    """Cancels and retries runs. One instance per process: the writer groups by its handler `apply`."""

    def __init__(self, after_commit: AfterCommit, tasks: StepTasks, advancer: Advancer) -> None:
        self._after_commit = after_commit
        self._tasks = tasks
        self._advancer = advancer

    async def change(self, writer: Writer, asked: Asked) -> RunRow:
        """Change a run; return it when that is on disk. Raises `NotFound`, and what the plan raises."""
        run = None
        while run is None:
            run = await writer.write(self.apply, asked)
        return run

    async def apply(self, tx: Transaction, asked: Sequence[Asked]) -> list[RunRow | Exception | None]:
        """Apply the plans; a result is None for a run of which a step has begun since its tasks were locked."""
        now = utc_now()
        wanted = {(each.organization_id, each.uid) for each in asked}
        found = await tasks_under_way(tx, {uid for _, uid in wanted})
        tasks: dict[str, TaskState | None] = {uid: None for key, run, uid in found if (key, run) in wanted}
        tasks |= await tx.load_tasks(tasks.keys()) if tasks else {}
        runs = {run["uid"]: run for run in await lock_runs(tx, {uid for _, uid in wanted})}
        return [await self._apply_one(tx, each, runs.get(each.uid), tasks, now) for each in asked]

    async def _apply_one(
        self, tx: Transaction, asked: Asked, run: RunRow | None, tasks: Mapping[str, TaskState | None], now: datetime
    ) -> RunRow | RingbackError | None:
        """Apply one plan; `tasks` has None for a task whose row is not there any more."""
        if run is None or run["organization_id"] != asked.organization_id:
            return unknown_run(asked.uid)
        under_way = [step for step in run["steps"] if step["status"] in UNDER_WAY]
        if any(step["task_uid"] not in tasks for step in under_way):
            return None
        change = RunChange(run, now, self._advancer.choose)
        try:
            change.apply_plan(asked.plan)
        except RingbackError as refusal:
            return refusal
        states = [(task, step) for step in under_way if (task := tasks[step["task_uid"]]) is not None]
        events = await self._change_tasks(tx, change, states, now)
        events += await self._advancer.write(tx, [change], now)
        for event in events:
            event.request_id = asked.request_id
        await record(tx, events, self._after_commit, now)
        return run

    async def _change_tasks(
        self, tx: Transaction, change: RunChange, states: Sequence[tuple[TaskState, Mapping[str, Any]]], now: datetime
    ) -> list[NewEvent]:
        """Recall the tasks that the plan recalls, and no other one; return the events."""
        recalled = [task for task, _ in states if task.uid in change.recall]
        events = await self._tasks.recall(tx, recalled, now) if recalled else []
        for task in recalled:
            if task.status in TERMINAL:
                change.apply_task(task, {})
        resumed = [(task, step_of(step["spec"]).max_attempts) for task, step in states if task.uid not in change.recall]
        if resumed:
            await self._tasks.resume(tx, resumed, now)
        return events


def unknown_run(uid: str) -> NotFound:
    """Return the error for a run that the organization does not have."""
    return NotFound(f"run {uid[:80]!r} does not exist", code="run_not_found", param="run_id")
