"""`/api/v1/runs`: several tasks in the order of their dependencies.

Pi's endpoints (`receiver/api/CONTRACTS.md`, "Pi"), extended by list, cancel and retry.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from models import RunStatus, StepStatus
from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.ids import read_id
from receiver.api.lists import page, read_cursor
from receiver.api.long_poll import Caller, Later
from receiver.api.repetition import has_moved, last_cancellation
from receiver.api.run_schemas import CreateRun, GetRun, RunQuery
from receiver.api.schemas import TaskEventQuery
from receiver.domain.graph import Graph, check_graph
from receiver.domain.representations import brief_event, native_event
from receiver.domain.run_representations import brief_run, detailed_run, native_run
from receiver.errors import NotFound, TooLarge
from receiver.runs.changes import RunRow, unknown_run
from receiver.runs.service import RunRequest
from receiver.storage.events import (
    event_and_task,
    events_of_run,
    large_events,
    newest_cancellation,
)
from receiver.storage.large_rows import read_first
from receiver.storage.runs import RunFilter

MOST_RUN_BYTES = 8 * 1024 * 1024
"""Of its request. All steps are stored at once, and each that starts is stored again as its task."""


async def create_run(call: Call) -> Reply:
    """`POST /api/v1/runs`: create a run. When this returns it is on disk, and its first steps have started."""
    if (size := len(await call.text())) > MOST_RUN_BYTES:
        raise TooLarge(f"the body has {size} bytes; a run may have {MOST_RUN_BYTES}")
    wanted = await call.body(CreateRun)
    runs = call.services.runs
    steps = [step.spec for step in wanted.steps]
    graph = check_graph(steps, runs.actions.issues(steps))
    for provider, account in runs.accounts_of(steps):
        call.services.accounts.known.choose(call.organization_id, provider, account)
    uid = call.new_id()
    call.span.set(run_id=uid, steps=len(graph.steps))
    if not call.is_resumed or await runs.unknown(call.organization_id, [uid]):
        # All steps count when the run is created, so that no limit ends a run in the middle.
        request = RunRequest(
            uid=uid,
            organization_id=call.organization_id,
            organization_uid=call.principal.organization_uid,
            graph=graph,
            metadata=wanted.metadata,
        )
        with await call.services.quotas.begin_creates(call.organization_id, len(graph.steps), size):
            await runs.create(request, size=size)
    return Reply(_created(uid, graph), "run", status=202)


async def get_run(call: Call) -> Reply | Later:
    """`GET /api/v1/runs/{id}`: return a run, at once or when it has ended.

    With `include=details` its steps have what was requested, and the attempts of their tasks.
    """
    uid = call.path_id("run_id")
    query = call.query(GetRun)
    seconds, is_detailed = query.timeout_seconds, query.include is not None
    if not query.wait_for_completion:
        run = await call.services.runs.run(call.organization_id, uid)
        return await _reply_in_form(call, run, is_detailed=is_detailed)
    return Later(partial(_reply_when_ended, uid, seconds, is_detailed))


async def _reply_when_ended(uid: str, seconds: float, is_detailed: bool, call: Caller) -> Reply:
    with call.services.quotas.waiting(call.organization_id):
        run = await call.services.runs.wait(call.organization_id, uid, seconds)
    return await _reply_in_form(call, run, is_detailed=is_detailed)


async def list_runs(call: Call) -> Reply:
    """`GET /api/v1/runs`: list runs, newest first; a filter of the form `metadata[k]=v` is for their own metadata."""
    query = call.query(RunQuery)
    wanted = RunFilter(
        organization_id=call.organization_id,
        status=query.status,
        metadata=query.metadata,
        before=read_cursor(query.cursor),
    )
    if query.brief:
        brief = await call.services.runs.brief_page(wanted, query.limit + 1)
        return page(brief, query.limit, (brief_run(row, row["steps"]) for row in brief))
    rows, rest = await call.services.runs.page(wanted, query.limit + 1, call.hold)
    return page(rows, query.limit, (native_run(row, row["steps"]) for row in rows), is_cut=bool(rest))


async def list_run_events(call: Call) -> Reply:
    """`GET /api/v1/runs/{id}/events`: list the events of a run and of the tasks of its steps, newest first."""
    uid, query = call.path_id("run_id"), call.query(TaskEventQuery)
    if await call.services.runs.unknown(call.organization_id, [uid]):
        raise unknown_run(uid)
    wanted = large_events(events_of_run(uid, query.limit + 1, read_cursor(query.cursor)), brief=query.brief)
    rows, rest = await read_first(call.services.database.read, wanted, call.hold)
    view = brief_event if query.brief else native_event
    events = []
    for row in rows:
        event, task = event_and_task(row)
        events.append(view(task, event))
    return page([{"id": row["event_id"]} for row in rows], query.limit, events, is_cut=bool(rest))


async def cancel_run(call: Call) -> Reply:
    """`POST /api/v1/runs/{id}/cancel`: cancel a run and its tasks."""
    uid, runs = call.path_id("run_id"), call.services.runs
    if await has_moved(call, await last_cancellation(call, newest_cancellation(run_uid=uid))):
        return _reply(await runs.run(call.organization_id, uid))
    return _reply(await runs.cancel(call.organization_id, uid))


async def retry_run(call: Call) -> Reply:
    """`POST /api/v1/runs/{id}/retry`: do the steps of a run again that did not complete."""
    uid, runs = call.path_id("run_id"), call.services.runs
    run = await runs.run(call.organization_id, uid)
    if await has_moved(call, run["ended_event"]):
        return _reply(run)
    if run["status"] in (RunStatus.FAILED, RunStatus.CANCELLED):
        with await call.services.quotas.begin_again(call.organization_id):
            await _look_first(call, run)
            return _reply(await runs.retry(call.organization_id, uid))
    return _reply(await runs.retry(call.organization_id, uid))


async def find_run_ids(call: Call, given: Sequence[str]) -> list[str]:
    """Return the ids of runs that a query's `run_id` names. Raises `BadRequest`, `NotFound`."""
    uids = [read_id(each, param="run_id", code="invalid_query_params") for each in given]
    unknown = await call.services.runs.unknown(call.organization_id, uids) if uids else []
    if unknown:
        raise NotFound(f"there is no run {unknown[0]!r}", code="run_not_found", param="run_id")
    return uids


async def _look_first(call: Call, run: RunRow) -> None:
    """Look for the tasks of failed steps that the provider may have made all the same. Raises `Conflict` if it has."""
    failed = [step["task_uid"] for step in run["steps"] if step["status"] == StepStatus.FAILED and step["task_uid"]]
    tracker, tasks = call.services.tracker, []
    for uid in failed:
        with suppress(NotFound):  # purged
            tasks.append(await tracker.task(call.organization_id, uid))
    await tracker.look_first(tasks)


def _created(uid: str, graph: Graph) -> dict[str, Any]:
    """Return a new run in Pi's form: always as pending, although its first steps may have started."""
    steps = [{"id": step.id, "status": StepStatus.PENDING} for step in graph.steps]
    return {"object": "run", "run_id": uid, "status": RunStatus.PENDING, "steps": steps}


async def _reply_in_form(call: Caller, run: RunRow, *, is_detailed: bool) -> Reply:
    if not is_detailed:
        return _reply(run)
    return Reply(detailed_run(run, await call.services.runs.attempts(call.organization_id, run)), "run")


def _reply(run: RunRow) -> Reply:
    return Reply(native_run(run, run["steps"]), "run")
