"""What the API asks of runs: create, wait, cancel, retry. `receiver.runs.advance` advances them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from models import RUN_TERMINAL, EventType, RunStatus
from receiver.clock import utc_now
from receiver.domain import advance as rules
from receiver.domain.actions import Actions
from receiver.domain.graph import Graph, StepSpec
from receiver.domain.representations import native_attempts
from receiver.domain.steps import Definition, definition_of
from receiver.events.after_commit import AfterCommit
from receiver.events.record import record
from receiver.runs.advance import Advancer, RunChange, run_event
from receiver.runs.changes import Asked, RunChanger, RunRow, StepTasks, unknown_run
from receiver.storage.attempts import attempts_of_all, present_attempts
from receiver.storage.database import Database
from receiver.storage.large_rows import Hold, read_first
from receiver.storage.optimistic import comes_last, may_be_optimistic
from receiver.storage.runs import (
    RunFilter,
    brief_steps_of,
    large_runs,
    new_run,
    run_by_id,
    runs_among,
    runs_matching,
    steps_of,
)
from receiver.storage.transaction import Transaction
from receiver.telemetry.request_ids import current_request_id
from receiver.telemetry.trace_context import current_trace_context


class RunRequest(Struct, frozen=True, kw_only=True):
    """A run that a client requests, validated; `uid` is the id that it will have."""

    uid: str
    organization_id: int
    organization_uid: str
    graph: Graph
    metadata: dict[str, Any] | None = None
    request_id: str | None = field(default_factory=current_request_id)
    trace_context: str | None = field(default_factory=current_trace_context)


class Runs:
    """Runs, as the API uses them. `actions` are what their steps may do."""

    def __init__(
        self, database: Database, after_commit: AfterCommit, tasks: StepTasks, actions: Actions, advancer: Advancer
    ) -> None:
        self.actions = actions
        self._database = database
        self._after_commit = after_commit
        self._advancer = advancer
        self._changer = RunChanger(after_commit, tasks, advancer)

    def accounts_of(self, steps: Sequence[StepSpec]) -> set[tuple[str, str]]:
        """Return the accounts that the steps' actions name, each with its provider."""
        actions = map(self.actions.of, steps)
        return {(each.provider, each.account) for each in actions if each.account is not None}

    async def create(self, request: RunRequest, *, size: int = 0) -> None:
        """Create a run and start its first steps; return when both are on disk.

        `size` is about how many bytes the request has.
        """
        await self._database.writer.write(
            self._create,
            request,
            items=len(request.graph.steps),
            size=size,
            organization=request.organization_id,
        )

    async def run(self, organization_id: int, uid: str) -> RunRow:
        """Return a run with its steps. Raises `NotFound`."""
        rows = await self._database.read(run_by_id(organization_id, uid))
        if not rows:
            raise unknown_run(uid)
        return (await self._with_steps(rows))[0]

    async def unknown(self, organization_id: int, uids: Sequence[str]) -> list[str]:
        """Return those of these ids that are not the id of a run of the organization."""
        found = {row["uid"] for row in await self._database.read(runs_among(organization_id, uids))}
        return [uid for uid in uids if uid not in found]

    async def page(self, wanted: RunFilter, limit: int, hold: Hold) -> tuple[list[RunRow], list[int]]:
        """Return runs with their steps, newest first, as many as fit a page, and the row keys of the rest.

        `hold` takes the room for a large page. Raises `Unavailable`.
        """
        query = large_runs(runs_matching(wanted, limit))
        return await read_first(self._database.read, query, hold, complete=self._with_steps)

    async def brief_page(self, wanted: RunFilter, limit: int) -> list[RunRow]:
        """Return runs, newest first, with the columns of their steps that do not become large."""
        rows = await self._database.read(runs_matching(wanted, limit))
        steps = await self._database.read(brief_steps_of([row["id"] for row in rows])) if rows else []
        return _joined(rows, steps)

    async def attempts(self, organization_id: int, run: RunRow) -> dict[str, list[dict[str, Any]]]:
        """Return the attempts of the tasks of a run's steps in the form of the API, by the tasks' ids."""
        uids = [step["task_uid"] for step in run["steps"] if step["task_uid"]]
        tasks = await self._database.read(present_attempts(organization_id, uids)) if uids else []
        keys = [task["id"] for task in tasks if task["attempt"] > 1]
        earlier = await self._database.read(attempts_of_all(keys)) if keys else []
        return {
            task["uid"]: native_attempts(task, [each for each in earlier if each["task_id"] == task["id"]])
            for task in tasks
        }

    async def wait(self, organization_id: int, uid: str, seconds: float) -> RunRow:
        """Return a run when it has ended, or as it is after `seconds` or when the service stops. Raises `NotFound`."""
        return dict(
            await self._after_commit.waiting.read_until(
                uid, seconds, lambda: self.run(organization_id, uid), lambda run: run["status"] in RUN_TERMINAL
            )
        )

    async def cancel(self, organization_id: int, uid: str) -> RunRow:
        """Cancel a run and return it when that is on disk.

        Tasks of its steps that wait to be sent are cancelled with it. For those under way the task worker asks their
        provider; where that refuses, they run to their end. For a run that is cancelled already this is repeated.
        Raises `NotFound`, and `Conflict` for a run that ended otherwise.
        """
        return await self._changer.change(self._database.writer, Asked(organization_id, uid, rules.cancel))

    async def retry(self, organization_id: int, uid: str) -> RunRow:
        """Retry the steps that failed, were skipped or were cancelled; the results of completed steps are kept.

        Raises `NotFound`, and `Conflict` for a run that neither failed nor was cancelled.
        """
        return await self._changer.change(self._database.writer, Asked(organization_id, uid, rules.retry))

    @comes_last
    @may_be_optimistic
    async def _create(self, tx: Transaction, requests: Sequence[RunRequest]) -> list[Exception | None]:
        """Insert runs, and the tasks of their first steps. A handler of the writer."""
        now = utc_now()
        changes, events = [], []
        for request in requests:
            run = new_run(_values(request, now), request.organization_uid, self._definition(request))
            created = run_event(run, EventType.RUN_CREATED, now)
            change = RunChange(run, now, self._advancer.choose)
            change.apply_plan(rules.advance)
            changes.append(change)
            events.append(created)
        events += await self._advancer.insert(tx, changes, now)
        request_ids = {request.uid: request.request_id for request in requests}
        for event in events:
            event.request_id = request_ids[str(event.run_uid)]
        await record(tx, events, self._after_commit, now)
        return [None] * len(requests)

    def _definition(self, request: RunRequest) -> Definition:
        return definition_of(request.graph, {step.id: self.actions.of(step) for step in request.graph.steps})

    async def _with_steps(self, rows: Sequence[Mapping[str, Any]]) -> list[RunRow]:
        steps = await self._database.read(steps_of([row["id"] for row in rows])) if rows else []
        return _joined(rows, steps)


def _values(request: RunRequest, now: datetime) -> dict[str, Any]:
    return {
        "uid": request.uid,
        "organization_id": request.organization_id,
        "status": RunStatus.PENDING,
        "metadata": request.metadata,
        "trace_context": request.trace_context,
        "created_at": now,
        "updated_at": now,
    }


def _joined(rows: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> list[RunRow]:
    return [{**row, "steps": [step for step in steps if step["run_id"] == row["id"]]} for row in rows]
