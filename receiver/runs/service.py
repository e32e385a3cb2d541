"""What the API asks of runs: create, wait, cancel, retry. `receiver.runs.advance` advances them."""

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
from receiver.runs.advance import Advancer, Plan, RunChange, run_event
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

_CANCEL_TRIES = 5
_SENDING_SECONDS = 30.0
"""A task that is being sent cannot be cancelled: how often, and how long each time, a change of it is waited for."""

RunRow = dict[str, Any]
"""The row of a run with its organization's outer id, and the rows of its steps as `steps`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A run that a client requests, validated; `uid` is the id that it will have."""

    uid: str
    organization_id: int
    graph: Graph
    metadata: dict[str, Any] | None = None


class StepTasks(Protocol):
    """The tasks of steps. All that `receiver.runs` knows of `receiver.tracking`."""

    async def task(self, organization_id: int, task_id: str) -> Mapping[str, Any]:
        """Return a task's row. Raises `NotFound`."""
        ...

    async def cancel(self, task: Mapping[str, Any]) -> str:
        """Cancel a task. Raises `Conflict` while it is being sent, or for one that has ended."""
        ...


class Runs:
    """Runs, as the API uses them. `actions` are what their steps may do."""

    def __init__(
        self, database: Database, after_commit: AfterCommit, tasks: StepTasks, actions: Actions, advancer: Advancer
    ) -> None:
        self.actions = actions
        self._database = database
        self._after_commit = after_commit
        self._advancer = advancer
        self._tasks = tasks
        self._cancelling: set[asyncio.Task[None]] = set()

    async def create(self, request: RunRequest) -> None:
        """Create a run and start its first steps; return when both are on disk."""
        await self._database.writer.run(lambda tx: self._create(tx, request, utc_now()))

    async def run(self, organization_id: int, uid: str) -> RunRow:
        """Return a run with its steps. Raises `NotFound`."""
        rows = await self._database.read(run_by_id(organization_id, uid))
        if not rows:
            raise _unknown(uid)
        return (await self._with_steps(rows))[0]

    async def unknown(self, organization_id: int, uids: Sequence[str]) -> list[str]:
        """Return those of these ids that are not the id of a run of the organization."""
        found = {row["uid"] for row in await self._database.read(runs_among(organization_id, uids))}
        return [uid for uid in uids if uid not in found]

    async def page(self, wanted: RunFilter, limit: int) -> list[RunRow]:
        """Return runs with their steps, newest first."""
        return await self._with_steps(await self._database.read(runs_matching(wanted, limit)))

    async def wait(self, organization_id: int, uid: str, seconds: float) -> RunRow:
        """Return a run when it has ended, or as it is after `seconds` or when the service stops. Raises `NotFound`."""
        return dict(
            await self._after_commit.waiting.read_until(
                uid, seconds, lambda: self.run(organization_id, uid), lambda run: run["status"] in RUN_TERMINAL
            )
        )

    async def cancel(self, organization_id: int, uid: str) -> RunRow:
        """Cancel a run and return it.

        Steps under way are cancelled at their provider in the background; where the provider refuses, their tasks
        run to their end. Raises `NotFound`, and `Conflict` for a run that ended otherwise.
        """
        change = await self._change(organization_id, uid, rules.cancel)
        if change.cancel_at_provider:
            cancelling = asyncio.create_task(self._cancel_steps(organization_id, uid, change.cancel_at_provider))
            self._cancelling.add(cancelling)
            cancelling.add_done_callback(self._cancelling.discard)
        return change.run

    async def retry(self, organization_id: int, uid: str) -> RunRow:
        """Retry the steps that failed, were skipped or were cancelled; the results of completed steps are kept.

        Raises `NotFound`, and `Conflict` for a run that neither failed nor was cancelled.
        """
        return (await self._change(organization_id, uid, rules.retry)).run

    async def drain(self, seconds: float) -> None:
        """Wait for the cancel calls under way, `seconds` at most, then abandon them."""
        if self._cancelling:
            _, late = await asyncio.wait(self._cancelling, timeout=seconds)
            for cancelling in late:
                cancelling.cancel()

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
        change = RunChange(run, now)
        change.apply_plan(rules.advance)
        await record(tx, [created, *await self._advancer.write(tx, [change], now)], self._after_commit, now)

    async def _change(self, organization_id: int, uid: str, plan: Plan) -> RunChange:
        """Apply `plan` to a run in one transaction. Raises `NotFound`, and what `plan` raises."""
        now = utc_now()

        async def work(tx: Transaction) -> RunChange | RingbackError:
            found = [run for run in await lock_runs(tx, [uid]) if run["organization_id"] == organization_id]
            if not found:
                return _unknown(uid)
            change = RunChange(found[0], now)
            try:
                change.apply_plan(plan)
            except RingbackError as refusal:
                return refusal
            await record(tx, await self._advancer.write(tx, [change], now), self._after_commit, now)
            return change

        outcome = await self._database.writer.run(work)
        assert isinstance(outcome, RunChange)  # noqa: S101 - the writer raises an error that `work` returns
        return outcome

    async def _cancel_steps(self, organization_id: int, uid: str, task_uids: Sequence[str]) -> None:
        try:
            await self._database.writer.run(lambda tx: stop_retries(tx, task_uids), bounded=False)
        except Unavailable as error:  # the steps of the cancelled run may be tried again
            log.warning(
                "stopping retries failed", run_id=uid, task_ids=task_uids, error_code=error.code, error=error.message
            )
        await asyncio.gather(*(self._cancel_step(organization_id, uid, task_uid) for task_uid in task_uids))

    async def _cancel_step(self, organization_id: int, uid: str, task_uid: str) -> None:
        """Cancel the task of a step, unless the run is retried in the meantime.

        A task that is being sent cannot be cancelled yet, and the provider would charge for it: its next change is
        waited for, then it is cancelled.
        """
        try:
            with self._after_commit.waiting.watch(task_uid) as watch:
                for _ in range(_CANCEL_TRIES):
                    run = await self.run(organization_id, uid)
                    task = await self._tasks.task(organization_id, task_uid)
                    if run["status"] != RunStatus.CANCELLED or task["status"] in TERMINAL:
                        return
                    try:
                        await self._tasks.cancel(task)
                    except Conflict:
                        await watch.changed(_SENDING_SECONDS)
        except RingbackError as error:
            # The task runs to its end; the run stays cancelled. Not a warning: many providers cannot cancel.
            log.info("cancelling step failed", run_id=uid, task_id=task_uid, error_code=error.code, error=error.message)

    async def _with_steps(self, rows: Sequence[Mapping[str, Any]]) -> list[RunRow]:
        steps = await self._database.read(steps_of([row["id"] for row in rows])) if rows else []
        return [{**row, "steps": [step for step in steps if step["run_id"] == row["id"]]} for row in rows]


def _unknown(uid: str) -> NotFound:
    return NotFound(f"run {uid[:80]!r} does not exist", code="run_not_found", param="run_id")
