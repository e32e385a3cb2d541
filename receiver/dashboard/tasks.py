"""The page of tasks: the newest first, with every filter of the API."""

from typing import Any

from starlette.responses import Response

from models import TERMINAL, TaskStatus
from receiver.api import tasks as api
from receiver.dashboard import bulk_actions
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.list_query import ListQuery, Pairs, canonical
from receiver.dashboard.selected_tasks import FIELD
from receiver.dashboard.times import between
from receiver.dashboard.visit import Visit

PATH = "/tasks"
COLUMNS = {
    "model": "Model",
    "task_type": "Type",
    "provider": "Provider",
    "progress": "Progress",
    "attempt": "Attempt",
    "run": "Run",
    "provider_task_id": "Provider's id",
    "metadata": "Metadata",
    "created": "Created",
    "started": "Started",
    "ended": "Ended",
    "took": "Took",
    "error": "Error",
}
DEFAULT_COLUMNS = ("model", "task_type", "created", "took", "error")
_OWN = frozenset({"columns", "search"})
_FOLLOWED = ("model", "task_type", "run_id")
"""The filters that the stream of events has too."""


async def show_tasks(visit: Visit) -> Response:
    """Show a page of tasks."""
    pairs = canonical(visit.query, DEFAULT_COLUMNS)
    if any(name == "search" for name, _ in pairs):
        return await _search(visit, pairs)
    if pairs != visit.query:
        return visit.redirect(PATH, pairs)
    query = ListQuery(PATH, pairs, visit.url)
    asked = [pair for pair in pairs if pair[0] not in _OWN]
    found, fault = await visit.ask_page(api.list_tasks, [*asked, ("brief", "true")])
    return visit.page(
        "tasks.html",
        status=fault.status if fault else 200,
        query=query,
        tasks=[{**task, "took": _took(visit, task)} for task in found["data"]],
        next_cursor=found["next_cursor"] if found["has_more"] else None,
        fault=fault,
        columns=_chosen(query),
        known_columns=COLUMNS,
        statuses=list(TaskStatus),
        terminal=TERMINAL,
        chips=_chips(query),
        bulk_links=_bulk_links(visit, query),
        picked=FIELD,
        live=visit.url("/live", [("event_types", "task.*"), *(pair for pair in pairs if pair[0] in _FOLLOWED)]),
    )


async def _search(visit: Visit, pairs: Pairs) -> Response:
    """Lead to what a text means: a task by one of its ids, a filter by metadata or status, else what the API finds."""
    text = next(value for name, value in pairs if name == "search")
    kept = [pair for pair in pairs if pair[0] not in ("search", "cursor")]
    name, sign, value = text.partition("=")
    if sign and name.strip():
        return visit.redirect(PATH, canonical([*kept, ("metadata_key", name), ("metadata_value", value)]))
    if text.lower() in list(TaskStatus):
        return visit.redirect(PATH, [*(pair for pair in kept if pair[0] != "status"), ("status", text.lower())])
    try:
        task = await visit.ask(api.get_task, task_id=text)
    except ApiRefusal as refused:
        if refused.status != 404:
            raise
        return visit.redirect(PATH, [*(pair for pair in kept if pair[0] != "q"), ("q", text)])
    return visit.redirect(f"{PATH}/{task['task_id']}")


def _chosen(query: ListQuery) -> list[str]:
    """Return the columns of the URL that there are, in the order of the page."""
    wanted = query.all("columns") or DEFAULT_COLUMNS
    return [name for name in COLUMNS if name in wanted]


def _chips(query: ListQuery) -> Pairs:
    """Return the filters that are shown one by one, each of which can be removed; the status has its own row."""
    return [pair for pair in query.pairs if pair[0] not in {*_OWN, "status", "cursor", "limit"}]


def _bulk_links(visit: Visit, query: ListQuery) -> list[tuple[str, str]]:
    """Return the links to the questions whether to act on all that match; none for a search, which is no filter."""
    if query.get("q"):
        return []
    filters = [pair for pair in query.pairs if pair[0] not in {*_OWN, "cursor", "limit"}]
    return [
        (verb, visit.url(bulk_actions.NEW, [("kind", kind), *filters]))
        for kind, (verb, *_) in bulk_actions.KINDS.items()
    ]


def _took(visit: Visit, task: dict[str, Any]) -> float | None:
    return between(task["created_at"], task["ended_at"], visit.now)
