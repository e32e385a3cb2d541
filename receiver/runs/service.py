"""What the API asks of runs: create, wait, cancel, retry. What moves them on by themselves is `tracking.advance`."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from models import RUN_TERMINAL, TERMINAL, EventType, RunStatus, StepStatus
from receiver.clock import utc_now
from receiver.domain import advance as rules
from receiver.domain.actions import Actions
from receiver.domain.graph import Graph
from receiver.domain.steps import document_of
from receiver.errors import Conflict, NotFound, RingbackError, Unavailable
from receiver.events.after_commit import AfterCommit
from receiver.events.record import record
from receiver.runs.advance import Advancer, Move, Plan, run_event
from receiver.storage.database import Database
from receiver.storage.runs import (
    RunFilter,
    insert_run,
    lock_runs,
    run_by_id,
    runs_among,
    runs_matching,
    steps_of,
)
from receiver.storage.tasks import stop_retries
from receiver.storage.transaction import Transaction
from receiver.telemetry import get_logger

log = get_logger("runs.service")

_RECALLS = 5
_SENDING_SECONDS = 30.0
"""How often, and for how long each time, news is waited for of a task that cannot be cancelled while it is sent."""

RunRow = dict[str, Any]
"""A run's row with its organization's outer id, and its steps' rows as `steps`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A run that a client asks for, checked; `uid` is the id that it will have."""

    uid: str
    organization_id: int
    graph: Graph
    metadata: dict[str, Any] | None = None


class StepTasks(Protocol):
    """The tasks of steps. `runs` knows no more of tracking than this."""

    async def task(self, organization_id: int, task_id: str) -> Mapping[str, Any]:
        """Return a task's row. Raises `NotFound`."""
        ...

    async def cancel(self, task: Mapping[str, Any]) -> str:
        """Cancel a task. Raises `Conflict` while it is being sent, or for one that has ended."""
        ...


class Runs:
    """Runs, as the API knows them. `actions` are what their steps may do."""

    def __init__(
        self, database: Database, after_commit: AfterCommit, tasks: StepTasks, actions: Actions, advancer: Advancer
    ) -> None:
        self.actions = actions
        self._database = database
        self._after_commit = after_commit
        self._advancer = advancer
        self._tasks = tasks
        self._recalling: set[asyncio.Task[None]] = set()

    async def create(self, request: RunRequest) -> None:
        """Create a run and begin its first steps; return when it is on disk."""
        await self._database.writer.run(lambda tx: self._create(tx, request, utc_now()))

    async def run(self, organization_id: int, uid: str) -> RunRow:
        """Return a run with its steps. Raises `NotFound`."""
        rows = await self._database.read(run_by_id(organization_id, uid))
        if not rows:
            raise _unknown(uid)
        return (await self._with_steps(rows))[0]

    async def unknown(self, organization_id: int, uids: Sequence[str]) -> list[str]:
        """Return those of these ids that no run has."""
        found = {row["uid"] for row in await self._database.read(runs_among(organization_id, uids))}
        return [uid for uid in uids if uid not in found]

    async def page(self, wanted: RunFilter, limit: int) -> list[RunRow]:
        """Return runs with their steps, newest first."""
        return await self._with_steps(await self._database.read(runs_matching(wanted, limit)))

    async def wait(self, organization_id: int, uid: str, seconds: float) -> RunRow:
        """Return a run when it has ended, or as it is after `seconds` or at the service's stop. Raises `NotFound`."""
        return dict(
            await self._after_commit.waiting.read_until(
                uid, seconds, lambda: self.run(organization_id, uid), lambda run: run["status"] in RUN_TERMINAL
            )
        )

    async def cancel(self, organization_id: int, uid: str) -> RunRow:
        """Cancel a run; what is at a provider is cancelled there if it allows it, and else left to end.

        Raises `NotFound`, `Conflict` for a run that ended otherwise.
        """
        move = await self._move(organization_id, uid, rules.cancel)
        if move.recall:
            recalling = asyncio.create_task(self._recall_all(organization_id, uid, move.recall))
            self._recalling.add(recalling)
            recalling.add_done_callback(self._recalling.discard)
        return move.run

    async def retry(self, organization_id: int, uid: str) -> RunRow:
        """Do what failed, was skipped or cancelled again; results of completed steps are kept.

        Raises `NotFound`, `Conflict` for a run that has neither failed nor been cancelled.
        """
        return (await self._move(organization_id, uid, rules.retry)).run

    async def drain(self, seconds: float) -> None:
        """Wait for the cancel calls under way, `seconds` at most."""
        if self._recalling:
            _, late = await asyncio.wait(self._recalling, timeout=seconds)
            for recalling in late:
                recalling.cancel()

    async def _create(self, tx: Transaction, request: RunRequest, now: datetime) -> None:
        values = {
            "uid": request.uid,
            "organization_id": request.organization_id,
            "status": RunStatus.PENDING,
            "metadata": request.metadata,
            "created_at": now,
            "updated_at": now,
        }
        steps = [
            {
                "position": position,
                "name": step.id,
                "status": StepStatus.PENDING,
                "spec": document_of(step, self.actions.find(step.action)),
            }
            for position, step in enumerate(request.graph.steps)
        ]
        run = await insert_run(tx, values, steps)
        created = run_event(run, EventType.RUN_CREATED, now)
        move = Move(run, now)
        move.go_on(rules.advance)
        await record(tx, [created, *await self._advancer.write(tx, [move], now)], self._after_commit, now)

    async def _move(self, organization_id: int, uid: str, plan: Plan) -> Move:
        now = utc_now()

        async def work(tx: Transaction) -> Move | RingbackError:
            found = [run for run in await lock_runs(tx, [uid]) if run["organization_id"] == organization_id]
            if not found:
                return _unknown(uid)
            move = Move(found[0], now)
            try:
                move.go_on(plan)
            except RingbackError as refusal:
                return refusal
            await record(tx, await self._advancer.write(tx, [move], now), self._after_commit, now)
            return move

        outcome = await self._database.writer.run(work)
        assert isinstance(outcome, Move)  # noqa: S101 - the writer raises an error that it is given
        return outcome

    async def _recall_all(self, organization_id: int, uid: str, task_uids: Sequence[str]) -> None:
        try:
            await self._database.writer.run(lambda tx: stop_retries(tx, task_uids), bounded=False)
        except Unavailable as error:
            log.warning("steps of a cancelled run may be tried again", tasks=task_uids, reason=error.message)
        await asyncio.gather(*(self._recall(organization_id, uid, task_uid) for task_uid in task_uids))

    async def _recall(self, organization_id: int, uid: str, task_uid: str) -> None:
        """Cancel a step's task, unless the run is retried meanwhile.

        One that is just being sent is waited for: it would be paid for.
        """
        try:
            with self._after_commit.waiting.watch(task_uid) as watch:
                for _ in range(_RECALLS):
                    run = await self.run(organization_id, uid)
                    task = await self._tasks.task(organization_id, task_uid)
                    if run["status"] != RunStatus.CANCELLED or task["status"] in TERMINAL:
                        return
                    try:
                        await self._tasks.cancel(task)
                    except Conflict:
                        await watch.changed(_SENDING_SECONDS)
        except RingbackError as error:
            log.info("a step of a cancelled run is left to end", task=task_uid, reason=error.message)

    async def _with_steps(self, rows: Sequence[Mapping[str, Any]]) -> list[RunRow]:
        steps = await self._database.read(steps_of([row["id"] for row in rows])) if rows else []
        return [{**row, "steps": [step for step in steps if step["run_id"] == row["id"]]} for row in rows]


def _unknown(uid: str) -> NotFound:
    return NotFound(f"there is no run {uid[:80]!r}", code="run_not_found", param="run_id")
