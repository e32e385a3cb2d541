"""The page of events: the newest first, with every filter of the API, and what each is about."""

from collections.abc import Awaitable
from typing import Any

from msgspec import Struct
from starlette.responses import Response

from models import SYSTEM_EVENTS, EventType
from receiver.api import events as api
from receiver.api import runs, tasks
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.documents import Shown, document
from receiver.dashboard.list_query import ListQuery, Pairs, canonical
from receiver.dashboard.timeline import ShownObject, kind_of, notes_of
from receiver.dashboard.visit import Visit
from receiver.domain.ids import is_id
from receiver.domain.matching import SUBSCRIBABLE
from receiver.domain.system_events import alert_text

PATH = "/events"
GROUPS = {"": "All", "task.*": "Tasks", "run.*": "Runs", "system.*": "System"}
FILTERS = {
    "model": ("Model", "Qubico/flux1-schnell"),
    "task_type": ("Type of task", "txt2img"),
    "task_id": ("Task", "its id, or the provider's"),
    "run_id": ("Run", "its id"),
    "limit": ("Events a page", "50"),
}
MOST_LOOKED_AT = 10_000
"""Events that are looked at for one page: of a filter that few pass, more would take longer than a page may."""
_FOLLOWED = ("event_types", "model", "task_type", "task_id", "run_id")
_SEVERE = frozenset({EventType.WEBHOOK_DISABLED, EventType.DELIVERY_DEAD, EventType.PROVIDER_UNAUTHORIZED})


class Subject(Struct, frozen=True):
    """What an event is about: a word for its kind, its id or name, the path of its page if it has one, and more."""

    word: str
    name: str = ""
    path: str | None = None
    more: str = ""


class LogEntry(Struct, frozen=True):
    """An event as a row: `kind` is a state, which has a shape and a colour."""

    event: ShownObject
    kind: str
    subject: Subject
    notes: list[str]
    document: Shown


async def show_events(visit: Visit) -> Response:
    """Show a page of events. The newest page is live; an older one never changes."""
    pairs = canonical(visit.query)
    if any(name == "search" for name, _ in pairs):
        return await _search(visit, pairs)
    if pairs != visit.query:
        return visit.redirect(PATH, pairs)
    query = ListQuery(PATH, pairs, visit.url)
    found, fault = await visit.ask_page(api.get_events, [*pairs, ("brief", "true"), ("scan_limit", MOST_LOOKED_AT)])
    is_live = fault is None and not query.get("cursor")
    return visit.page(
        "events.html",
        status=fault.status if fault else 200,
        query=query,
        entries=[_entry(event) for event in found["data"]],
        next_cursor=found["next_cursor"] if found["has_more"] else None,
        scanned_until=found.get("scanned_until"),
        fault=fault,
        groups=GROUPS,
        filters=FILTERS,
        types={name: name for name in SUBSCRIBABLE},
        chosen=_chosen(query),
        chips=_chips(query),
        live=visit.url("/live", [pair for pair in pairs if pair[0] in _FOLLOWED]) if is_live else None,
    )


async def _search(visit: Visit, pairs: Pairs) -> Response:
    """Lead to what a text means: the events of a type, of a task or run by its id, or of a model."""
    text = next(value for name, value in pairs if name == "search")
    name = await _meaning(visit, text)
    kept = [pair for pair in pairs if pair[0] not in ("search", "cursor", name)]
    return visit.redirect(PATH, [*kept, (name, text)])


async def _meaning(visit: Visit, text: str) -> str:
    if text in SUBSCRIBABLE or text in GROUPS:
        return "event_types"
    if await _exists(visit.ask(tasks.get_task, task_id=text)):
        return "task_id"
    return "run_id" if is_id(text) and await _exists(visit.ask(runs.get_run, run_id=text)) else "model"


async def _exists(asked: Awaitable[Any]) -> bool:
    try:
        await asked
    except ApiRefusal as refused:
        if refused.status != 404:
            raise
        return False
    return True


def _chosen(query: ListQuery) -> list[str]:
    """Return the types of events that the URL names."""
    return [part.strip() for value in query.all("event_types") for part in value.split(",")]


def _chips(query: ListQuery) -> Pairs:
    """Return the filters that are shown one by one, each with all of its values."""
    names = [name for name in _FOLLOWED if query.get(name)]
    return [(name, ", ".join(query.all(name))) for name in names if query.get(name) not in GROUPS]


def _entry(event: ShownObject) -> LogEntry:
    shown = document(event, is_plain=True)
    if event["type"] not in SYSTEM_EVENTS:
        return LogEntry(event, kind_of(event), _subject(event), notes_of(event), shown)
    kind = "dead" if event["type"] in _SEVERE else "failing"
    subject = _system_subject(event["data"])
    return LogEntry(event, kind, subject, _told(event, subject), shown)


def _subject(event: ShownObject) -> Subject:
    data = event["data"]
    if event["task_id"] is not None:
        uid = str(event["task_id"])
        return Subject("task", uid, f"/tasks/{uid}", f"{data.get('model', '')} {data.get('task_type', '')}")
    uid = str(event["run_id"] or "")
    return Subject("run", uid, f"/runs/{uid}")


def _system_subject(data: ShownObject) -> Subject:
    if "webhook" in data:
        uid = str(data["webhook"].get("id", ""))
        return Subject("webhook", uid, f"/webhooks/{uid}", str(data["webhook"].get("endpoint_url", "")))
    if "delivery" in data:
        uid = str(data["delivery"].get("id", ""))
        return Subject("delivery", uid, f"/deliveries/{uid}", str(data["delivery"].get("event_type", "")))
    if "task" in data:
        uid = str(data["task"].get("task_id", ""))
        return Subject("task", uid, f"/tasks/{uid}", f"{data['task'].get('model', '')}")
    return Subject("provider", str(data["provider"])) if "provider" in data else Subject("database")


def _told(event: ShownObject, subject: Subject) -> list[str]:
    """Return what a system event tells of its subject; nothing of one that another version stored in another form."""
    try:
        return [alert_text(event["type"], event["data"]).removeprefix(f"{subject.word} {subject.name} ")]
    except (KeyError, TypeError, ValueError):
        return []
