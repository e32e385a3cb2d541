"""The page of one task: its timeline, input and output, its deliveries, and what can be done with it."""

import re
import shlex
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from models import TERMINAL, Submission
from receiver.api import deliveries, explanations, piapi
from receiver.api import tasks as api
from receiver.dashboard.answers import attachment
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.documents import document
from receiver.dashboard.explained import shown_explanation
from receiver.dashboard.timeline import ShownObject, timeline
from receiver.dashboard.times import between
from receiver.dashboard.visit import Visit
from receiver.domain.output_files import is_url
from receiver.large_bodies import read_apart
from receiver.printable import printable_json

_MOST_EVENTS = 100
_MOST_DELIVERIES = 50
_MOST_PREVIEWS = 12
_PREVIEWED = ("image", "video", "audio")
_LONGEST_CURL = 8 * 1024
"""Characters of an input that stands in a command; a larger one is a file."""
_ORIGIN = re.compile(r"https?://[a-z0-9-]+(\.[a-z0-9-]+)*(:[0-9]{1,5})?", re.IGNORECASE)
_FILES = ("input", "output", "logs", "raw")
_ACTS = {
    "refresh": (api.refresh_task, "The task was looked at: it is {status}."),
    "cancel": (api.cancel_task, "The task is {status}."),
    "retry": (api.retry_task, "Another attempt begins: the task is {status}."),
}

_CURL_ACTS = {"refresh": "Refresh it at the provider", "cancel": "Cancel it", "retry": "Retry it"}


async def show_task(visit: Visit) -> Response:
    """Show a task."""
    given = visit.path("task_id")
    task = await visit.ask(api.get_task, task_id=given, query={"include": "attempts"})
    uid, wanted = str(task["task_id"]), dict(visit.query)
    events = await visit.ask(api.list_events, task_id=uid, query={"brief": "true", "limit": _MOST_EVENTS})
    sent = await visit.ask(deliveries.list_deliveries, query={"task_id": uid, "limit": _MOST_DELIVERIES})
    explained = await visit.ask(explanations.explain_task, task_id=uid)
    files = _files(task["output"])
    previews = _previews(files) if "preview" in wanted else []
    return visit.page(
        "task.html",
        media_from=tuple(sorted({origin for _, origin in previews})),
        task=task,
        shown=await read_apart(lambda: {name: document(task[name]) for name in ("input", "output", "logs")}),
        took=between(task["created_at"], task["ended_at"], visit.now),
        is_over=task["status"] in TERMINAL,
        explained=shown_explanation(explained, visit.now),
        quiet_polls=_quiet_polls(explained),
        timeline=timeline(task, events["data"][::-1], sent["data"][::-1], visit.now),
        has_more_events=events["has_more"],
        deliveries=sent["data"],
        has_more_deliveries=sent["has_more"],
        files=files,
        previews=[file for file, _ in previews],
        can_preview=bool(_previews(files)),
        raw=await _raw(visit, uid) if "raw" in wanted else None,
        curl=_curl(visit, task, explained["may"]),
        live=visit.url("/live", {"task_id": uid}),
    )


async def download(visit: Visit) -> Response:
    """Return a part of a task as a file: all of its output, for example."""
    uid, part = visit.path("task_id"), dict(visit.query).get("part", "")
    if part not in _FILES:
        raise HTTPException(404)
    value = await _raw(visit, uid) if part == "raw" else (await visit.ask(api.get_task, task_id=uid))[part]
    return attachment(orjson.dumps(value), f"{uid}.{part}.json", "application/json")


async def act(visit: Visit) -> Response:
    """Refresh, cancel or retry a task."""
    uid, name = visit.path("task_id"), visit.path("act")
    if name not in _ACTS:
        raise HTTPException(404)
    handler, text = _ACTS[name]
    otherwise = f"/tasks/{quote(uid, safe='')}"
    try:
        task = await visit.ask(handler, task_id=uid)
    except ApiRefusal as refused:
        return visit.not_done(refused, otherwise=otherwise)
    return visit.done(text.format(status=task["status"]), otherwise=otherwise)


async def _raw(visit: Visit, uid: str) -> ShownObject:
    """Return the task in the provider's own form: with what Ringback keeps of it without using it."""
    found = await visit.ask(piapi.get_task, task_id=uid)
    return {name: found[name] for name in ("meta", "detail", "config", "error")}


def _files(output: Any) -> list[ShownObject]:
    """Return the files of an output: their URLs are http or https."""
    listed = output.get("output_files") if isinstance(output, dict) else None
    return [
        {"url": each["url"], "kind": str(each.get("kind") or "other"), "name": str(each.get("name") or "")}
        for each in (listed if isinstance(listed, list) else [])[:200]
        if isinstance(each, dict) and is_url(each.get("url")) and str(each["url"]).isprintable()
    ]


def _previews(files: list[ShownObject]) -> list[tuple[ShownObject, str]]:
    """Return the files that a browser can show, each with the origin that the page has to allow for it."""
    found = [(file, _origin(file["url"])) for file in files if file["kind"] in _PREVIEWED]
    return [(file, origin) for file, origin in found if origin is not None][:_MOST_PREVIEWS]


def _origin(url: str) -> str | None:
    """Return the origin of a URL as a policy names it; None for one that no policy can name."""
    parts = urlsplit(url.strip())
    origin = f"{parts.scheme}://{parts.netloc}"
    return origin.lower() if _ORIGIN.fullmatch(origin) else None


def _quiet_polls(explained: ShownObject) -> int:
    """Return how often the provider of a task that is open there was asked since its last news."""
    facts = explained["facts"]
    is_there = explained["status"] not in TERMINAL and facts["submission"] == Submission.ACCEPTED
    return int(facts["poll_count"]) if is_there else 0


def _curl(visit: Visit, task: ShownObject, may: Sequence[str]) -> list[tuple[str, str]]:
    """Return commands, each with what it does, of what may be done now: text that a shell takes as it is."""
    base = str(visit.request.base_url).rstrip("/")
    key = '-H "Authorization: Bearer $RINGBACK_API_KEY"'
    one = f"{base}/api/v1/tasks/{task['task_id']}"
    body = {
        name: task[name] for name in ("provider", "account", "model", "task_type", "input") if task[name] is not None
    }
    text = orjson.dumps(body).decode()
    data = shlex.quote(printable_json(text)) if len(text) <= _LONGEST_CURL else "@task.json"
    return [
        ("Read this task", f"curl {key} \\\n  {shlex.quote(one)}"),
        ("Why it is in its state", f"curl {key} \\\n  {shlex.quote(f'{one}/explain')}"),
        *(
            (label, f"curl -X POST {key} \\\n  {shlex.quote(f'{one}/{name}')}")
            for name, label in _CURL_ACTS.items()
            if name in may
        ),
        (
            "Create one like it",
            f"curl {key} \\\n  -H 'Content-Type: application/json' \\\n"
            f"  {shlex.quote(f'{base}/api/v1/task')} \\\n  -d {data}",
        ),
    ]
