"""Acting on all tasks that match the filters of a URL: how many, what became of them, and all such requests."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from models import BulkActionKind, BulkActionStatus
from receiver.api import bulk_actions as api
from receiver.api.schemas import Timestamp
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.list_query import ListQuery, Pairs
from receiver.dashboard.sessions import set_notice
from receiver.dashboard.times import between
from receiver.dashboard.visit import Visit

PATH = "/bulk-actions"
NEW = f"{PATH}/new"
KINDS = {
    BulkActionKind.REFRESH: ("Refresh", "due", api.refresh_tasks),
    BulkActionKind.CANCEL: ("Cancel", "cancelled", api.cancel_tasks),
    BulkActionKind.RETRY: ("Retry", "retried", api.retry_tasks),
}
"""What can be done with many tasks: the verb, what is done afterwards, and the endpoint."""
_NO_FILTERS = frozenset({"kind", "columns", "limit", "cursor", "search"})
"""What a URL has besides filters."""
_OF_FORM = frozenset({"csrf", "back", "once", "kind", "counted", "act"})
_METADATA = "metadata["
_TIME_WORDS = {"created_after": "created after", "created_before": "created before"}
_TIME: TypeAdapter[datetime] = TypeAdapter(Timestamp)
_AGAIN_MS = 1500
"""How often the page of one that runs asks for itself again."""


async def show_question(visit: Visit) -> Response:
    """Say exactly how many tasks match, and ask whether to act on them."""
    kind = _kind(dict(visit.query).get("kind", ""))
    verb, _, handler = KINDS[kind]
    wanted = [pair for pair in visit.query if pair[0] not in _NO_FILTERS]
    now, fault, counted = visit.now, None, 0
    pairs = _until(wanted, now)
    try:
        counted = (await visit.ask(handler, body={**filter_of(pairs), "dry_run": True}))["matched"]
    except ApiRefusal as refused:
        if refused.status not in (400, 404):
            raise
        fault = refused.message
    return visit.page(
        "bulk_action_new.html",
        status=400 if fault else 200,
        kind=kind,
        verb=verb,
        counted=counted,
        counted_at=now.isoformat(),
        filters=pairs,
        words=filter_words(wanted),
        fault=fault,
        back=visit.url("/tasks", wanted),
    )


async def begin(visit: Visit) -> Response:
    """Begin to act on the tasks that match the filters of the form."""
    kind = _kind(visit.form.get("kind", ""))
    pairs = [pair for pair in visit.form.items() if pair[0] not in _OF_FORM]
    try:
        action = await visit.ask(KINDS[kind][2], body=filter_of(pairs))
    except ApiRefusal as refused:
        if refused.status in (401, 403):
            raise
        return visit.done(refused.message, otherwise="/tasks", kind="failed")
    response = visit.redirect(f"{PATH}/{action['id']}")
    set_notice(visit.request, response, "done", _begun(visit.form.get("counted", ""), action["matched"]))
    return response


async def show_bulk_action(visit: Visit) -> Response:
    """Show a bulk action and its progress."""
    action = _shown(visit, await visit.ask(api.get_bulk_action, bulk_action_id=visit.path("bulk_action_id")))
    return visit.page(
        "bulk_action.html",
        action=action,
        filters=filter_pairs(action["filter"]),
        words=filter_words(filter_pairs(action["filter"])),
        again=_AGAIN_MS if action["status"] == BulkActionStatus.RUNNING else None,
        live=visit.url("/live", {"event_types": "task.*"}),
    )


async def cancel(visit: Visit) -> Response:
    """Let a bulk action begin no further batch."""
    uid = visit.path("bulk_action_id")
    try:
        await visit.ask(api.cancel_bulk_action, bulk_action_id=uid)
    except ApiRefusal as refused:
        if refused.status in (401, 403, 404):
            raise
        return visit.done(refused.message, otherwise=f"{PATH}/{uid}", kind="failed")
    return visit.done("No further batch of it begins; what was done stays.", otherwise=f"{PATH}/{uid}")


async def show_bulk_actions(visit: Visit) -> Response:
    """Show a page of bulk actions, newest first."""
    query = ListQuery(PATH, visit.query, visit.url)
    found = await visit.ask(api.list_bulk_actions, query=visit.query)
    actions = [_shown(visit, each) for each in found["data"]]
    return visit.page(
        "bulk_actions.html",
        query=query,
        actions=[{**each, "words": filter_words(filter_pairs(each["filter"]))} for each in actions],
        again=_AGAIN_MS if any(each["status"] == BulkActionStatus.RUNNING for each in actions) else None,
        next_cursor=found["next_cursor"] if found["has_more"] else None,
        live=visit.url("/live", {"event_types": "task.*"}),
    )


def filter_of(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the filters of a URL as the body of a request has them.

    Raises `ApiRefusal` for what the list of tasks takes and a bulk action does not: a search, and one name twice.
    """
    found: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for name, value in pairs:
        is_metadata = name.startswith(_METADATA) and name.endswith("]")
        place, key = (metadata, name[len(_METADATA) : -1]) if is_metadata else (found, name)
        if key in place:
            raise _refusal(f"{name} stands twice in the address: keep one of them")
        if name == "q":
            raise _refusal(
                "a search is no filter: what it finds is not exact. Use a filter, or select tasks in the list"
            )
        place[key] = value
    return {**found, **({"metadata": metadata} if metadata else {})}


def filter_pairs(stored: Mapping[str, Any]) -> Pairs:
    """Return a filter of a bulk action as the query of the list of tasks has it."""
    metadata = [(f"{_METADATA}{key}]", str(value)) for key, value in (stored.get("metadata") or {}).items()]
    return [*((name, str(value)) for name, value in stored.items() if name not in ("metadata", "all")), *metadata]


def filter_words(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return each filter of a URL in words."""
    return [
        f"{_TIME_WORDS[name]} {_short(value)}" if name in _TIME_WORDS else f"{name} = {value}" for name, value in pairs
    ]


def tasks_in_words(count: int) -> str:
    """Return a number of tasks in words."""
    return "1 task" if count == 1 else f"{count:,} tasks"


def _short(time: str) -> str:
    """Return a time of a filter to the second; what is no time as it is."""
    try:
        return f"{_TIME.validate_python(time):%Y-%m-%d %H:%M:%S}"
    except ValidationError:
        return time


def _until(pairs: Pairs, now: datetime) -> Pairs:
    """Return the filters without tasks that are created from now on: they are not among those that are counted."""
    given = next((value for name, value in pairs if name == "created_before"), None)
    try:
        if given is not None and _TIME.validate_python(given) <= now:
            return pairs
    except ValidationError:
        return pairs  # the API says what is wrong with it
    return [*(pair for pair in pairs if pair[0] != "created_before"), ("created_before", now.isoformat())]


def _begun(counted: str, matched: int) -> str:
    """Return what is told when a bulk action begins: also that it is not of as many tasks as were counted."""
    begun = f"The bulk action began with {tasks_in_words(matched)}."
    if not counted.isdecimal() or int(counted) == matched:
        return begun
    return f"{begun} {tasks_in_words(int(counted))} were counted when you were asked: the others changed in between."


def _shown(visit: Visit, action: Mapping[str, Any]) -> dict[str, Any]:
    left = max(0, action["matched"] - action["done"] - action["failed"])
    verb, participle, _ = KINDS[_kind(action["kind"])]
    took = between(action["created_at"], action["ended_at"], visit.now)
    return {**action, "verb": verb, "participle": participle, "left": left, "took": took}


def _kind(text: str) -> BulkActionKind:
    if text not in list(BulkActionKind):
        raise HTTPException(404)
    return BulkActionKind(text)


def _refusal(message: str) -> ApiRefusal:
    return ApiRefusal(400, {"message": message})
