"""The page of runs: the newest first, with every filter of the API."""

from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from models import RUN_TERMINAL, RunStatus, StepStatus
from receiver.api import runs as api
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.list_query import ListQuery, Pairs, canonical
from receiver.dashboard.visit import NO_ITEMS, Visit

PATH = "/runs"


async def show_runs(visit: Visit) -> Response:
    """Show a page of runs."""
    pairs, fault = canonical(visit.query), None
    text = next((value for name, value in pairs if name == "search"), None)
    if text is not None:
        found = await _search(visit, text, [pair for pair in pairs if pair[0] not in ("search", "cursor")])
        if isinstance(found, Response):
            return found
        fault = found
    elif pairs != visit.query:
        return visit.redirect(PATH, pairs)
    listed = NO_ITEMS
    if fault is None:
        listed, fault = await visit.ask_page(api.list_runs, [*pairs, ("brief", "true")])
    query = ListQuery(PATH, pairs, visit.url)
    return visit.page(
        "runs.html",
        status=fault.status if fault else 200,
        query=query,
        runs=[_row(run, visit.now) for run in listed["data"]],
        next_cursor=listed["next_cursor"] if listed["has_more"] else None,
        fault=fault,
        statuses=list(RunStatus),
        terminal=RUN_TERMINAL,
        chips=[pair for pair in query.pairs if pair[0] not in ("search", "status", "cursor", "limit")],
        live=visit.url("/live", [("event_types", "run.*,task.*")]),
    )


async def _search(visit: Visit, text: str, kept: Pairs) -> Response | ApiRefusal:
    """Lead to what a text means: a filter by metadata or status, else a run by its id; or return why it is none."""
    name, sign, value = text.partition("=")
    if sign and name.strip():
        return visit.redirect(PATH, canonical([*kept, ("metadata_key", name), ("metadata_value", value)]))
    if text.lower() in list(RunStatus):
        return visit.redirect(PATH, [*(pair for pair in kept if pair[0] != "status"), ("status", text.lower())])
    try:
        run = await visit.ask(api.get_run, run_id=text)
    except ApiRefusal as refused:
        if refused.status not in (400, 404):
            raise
        return refused
    return visit.redirect(f"{PATH}/{run['id']}")


def _row(run: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return a run with what its row shows: its times as the rest of the API writes them."""
    created = datetime.fromtimestamp(run["created_at"], UTC)
    took = run["duration_seconds"]
    return {
        **run,
        "created": created.isoformat(),
        "took": took if took is not None else (now - created).total_seconds(),
        "completed": sum(step["status"] == StepStatus.COMPLETED for step in run["steps"]),
    }
