"""Resources: a task, its events and a run, as JSON; larger ones than a tool returns."""

import re
from urllib.parse import unquote

import orjson
from msgspec import Struct

from receiver.mcp.calls import ApiCalls, one
from receiver.mcp.shortening import MOST_RESOURCE_BYTES
from receiver.mcp.task_tools import task_uri
from receiver.mcp.tool import cut_note

_NEWEST = 20
_EVENTS = 100
_URI = re.compile(r"ringback://(?:(tasks)/([^/?#]+)(/events)?|(runs)/([^/?#]+))")


class UriTemplate(Struct, frozen=True):
    """A form of URIs."""

    uri: str
    name: str
    description: str


TEMPLATES = (
    UriTemplate("ringback://tasks/{id}", "task", "A task with its input and output."),
    UriTemplate(
        "ringback://tasks/{id}/events", "task events", f"What happened to a task, the newest {_EVENTS} events first."
    ),
    UriTemplate("ringback://runs/{id}", "run", "A run with its steps and their results."),
)


async def newest(calls: ApiCalls) -> list[tuple[str, str]]:
    """Return URI and name of the newest tasks. Raises `ToolFailure`."""
    found = await calls.get("/api/v1/tasks", [("limit", str(_NEWEST))], most=64 * 1024 * 1024)
    return [
        (task_uri(task["task_id"]), f"{task['model']} {task['task_type']}, {task['status']}")
        for task in found.data["data"]
    ]


async def read_resource(calls: ApiCalls, uri: str) -> str | None:
    """Return the JSON of a resource; None if there is none with such a URI. Raises `ToolFailure`."""
    match = _URI.fullmatch(uri)
    if match is None:
        return None
    kind, identifier, action = match[1] or match[4], unquote(match[2] or match[5]), match[3] or ""
    path = one(kind, identifier, action)
    query = [("limit", str(_EVENTS))] if action else []
    found = await calls.get(path, query, most=MOST_RESOURCE_BYTES)
    data = {**found.data, "shortened": cut_note(found.size, f"GET {path}")} if found.is_cut else found.data
    return orjson.dumps(data, option=orjson.OPT_INDENT_2).decode()
