"""Runs: several tasks in dependency order (contracts/pi.md, with a list, cancel and retry besides)."""

from collections.abc import Sequence
from typing import Any

from models import RunStatus, StepStatus
from receiver.api.dialects import Reply
from receiver.api.endpoint import Call, check
from receiver.api.ids import read_id
from receiver.api.lists import page, read_cursor, read_query
from receiver.api.run_schemas import CreateRun, RunQuery
from receiver.api.schemas import WaitQuery
from receiver.domain.graph import Graph, check_graph
from receiver.domain.run_representations import native_run
from receiver.errors import Conflict, NotFound
from receiver.runs.service import RunRequest, RunRow
from receiver.storage.runs import RunFilter


async def create_run(call: Call) -> Reply:
    """`POST /api/v1/runs`: when this is answered the run is on disk, and its first steps have begun."""
    wanted = await call.body(CreateRun)
    runs = call.services.runs
    steps = [step.spec for step in wanted.steps]
    graph = check_graph(steps, runs.actions.issues(steps))
    uid = call.new_id()
    if not call.is_resumed or await runs.unknown(call.organization_id, [uid]):
        await runs.create(
            RunRequest(uid=uid, organization_id=call.organization_id, graph=graph, metadata=wanted.metadata)
        )
    return Reply(_created(uid, graph), "run", status=202)


async def get_run(call: Call) -> Reply:
    """`GET /api/v1/runs/{id}`, at once or when it has ended."""
    uid = call.path_id("run_id")
    query = check(WaitQuery, read_query(call.request.query_params), code="invalid_query_params")
    runs = call.services.runs
    if query.wait_for_completion:
        return _shown(await runs.wait(call.organization_id, uid, query.timeout_seconds))
    return _shown(await runs.run(call.organization_id, uid))


async def list_runs(call: Call) -> Reply:
    """`GET /api/v1/runs`: filters on status and `metadata[k]=v`, newest first."""
    query = check(RunQuery, read_query(call.request.query_params), code="invalid_query_params")
    wanted = RunFilter(
        organization_id=call.organization_id,
        status=query.status,
        metadata=query.metadata,
        before=read_cursor(query.cursor),
    )
    rows = await call.services.runs.page(wanted, query.limit + 1)
    return page(rows, query.limit, [native_run(row, row["steps"]) for row in rows])


async def cancel_run(call: Call) -> Reply:
    """`POST /api/v1/runs/{id}/cancel`."""
    return _shown(await call.services.runs.cancel(call.organization_id, call.path_id("run_id")))


async def retry_run(call: Call) -> Reply:
    """`POST /api/v1/runs/{id}/retry`: what is completed is kept, all else is done again."""
    uid, runs = call.path_id("run_id"), call.services.runs
    try:
        return _shown(await runs.retry(call.organization_id, uid))
    except Conflict:
        if not call.is_resumed:
            raise
        return _shown(await runs.run(call.organization_id, uid))  # the request before was not answered, but obeyed


async def find_run_ids(call: Call, given: Sequence[str]) -> list[str]:
    """Return the ids of runs that a query's `run_id` names. Raises `BadRequest`, `NotFound`."""
    uids = [read_id(each, param="run_id", code="invalid_query_params") for each in given]
    unknown = await call.services.runs.unknown(call.organization_id, uids) if uids else []
    if unknown:
        raise NotFound(f"there is no run {unknown[0]!r}", code="run_not_found", param="run_id")
    return uids


def _created(uid: str, graph: Graph) -> dict[str, Any]:
    """Return what Pi tells of a new run, which is the same for every run: it may be further by now."""
    steps = [{"id": step.id, "status": StepStatus.PENDING} for step in graph.steps]
    return {"run_id": uid, "status": RunStatus.PENDING, "steps": steps}


def _shown(run: RunRow) -> Reply:
    return Reply(native_run(run, run["steps"]), "run")
