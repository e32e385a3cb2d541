"""Paths as clients write them, in the one form that the routes are matched with.

- Slashes at the end, and repeated ones, mean nothing: `//api/v1/task/` is `/api/v1/task`. Such a request is answered
  and not redirected, because senders of webhooks, and clients that post, do not follow redirects.
- A percent-encoded slash belongs to the id that it stands in: `/api/v1/tasks/a%2Fb/events` names the task `a/b`. In
  the form for matching, `%2F` and `%25` stay encoded, and `segment_text` decodes them.
- Below `/api/v1/task` and `/api/v1/tasks` the plain slashes of an id count as encoded: all up to the end, or up to a
  last segment that is the name of an action, is the id. An id that ends in such a name has to be encoded.
- Below `/v1/models` the same holds for the name of a model after its owner, up to `predictions` or `versions/{id}`.
- Below a prefix (`RINGBACK_ROOT_PATH`) both forms are the same request: the path as the client wrote it, prefix first,
  and the path from which the reverse proxy has stripped it.
"""

import re
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_TASKS = ([b"api", b"v1", b"task"], [b"api", b"v1", b"tasks"])
_MODELS = [b"v1", b"models"]
_OWNER = 3
"""The segments of `/v1/models/{owner}`; what follows begins with the name."""
_ACTIONS = frozenset({b"events", b"explain", b"refresh", b"cancel", b"retry"})
_PAGES = frozenset(
    b"audit bulk-actions deliveries docs events inbound keys live llms.txt organizations overview providers".split()
    + b"runs sign-in sign-out static tasks theme webhooks".split()
)
"""The first segments of the dashboard's paths."""
_OURS = _PAGES | frozenset(b"account api hooks livez mcp metrics openapi.json readyz v1".split())
"""The first segments of all our paths."""
_PLAIN_SLASHES = 4
"""The slashes in `/api/v1/tasks/{id}`; a task's path with more has an action, or slashes in its id."""
_KEPT = re.compile(rb"%(2[fF]|25)|%(?![0-9a-fA-F]{2})")
"""An encoded slash, an encoded `%`, or a `%` that encodes nothing."""


class PathMiddleware:
    """Brings the path of each request into the form for matching."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, with its path in that form."""
        if scope["type"] == "http":
            root = scope.get("root_path", "")
            arrived = (scope.get("raw_path") or quote(scope["path"]).encode()).removeprefix(root.encode())
            raw = _without_prefix(arrived, root.encode()) if root else arrived
            if raw is not arrived or not _is_normal(raw):
                scope["path"] = root + normal_path(raw)
        await self._app(scope, receive, send)


def normal_path(raw: bytes) -> str:
    """Return a raw path, which is still percent-encoded, in the form for matching."""
    segments = [segment for segment in raw.split(b"/") if segment]
    if segments[:3] in _TASKS and len(segments) > _PLAIN_SLASHES:
        segments = [*segments[:3], *_task_segments(segments[3:])]
    elif segments[:2] == _MODELS and len(segments) > _PLAIN_SLASHES:
        segments = [*segments[:_OWNER], *_model_segments(segments[_OWNER:])]
    return "/" + "/".join(map(_decoded, segments))


def is_page(path: str) -> bool:
    """Return whether a path in the form for matching is one of the dashboard, if it is any at all of ours."""
    return path == "/" or path[1:].split("/", 1)[0].encode(errors="replace") in _PAGES


def segment_text(segment: str) -> str:
    """Return the text that a segment of a path in the form for matching stands for."""
    return unquote(segment)


def _without_prefix(raw: bytes, prefix: bytes) -> bytes:
    """Return a raw path without the prefix, where the reverse proxy has not stripped it.

    A prefix that begins like a path of ours is always stripped by the proxy (`RINGBACK_ROOT_PATH` says so): below
    `/api`, the path `/api/v1/task` could be meant either way.
    """
    if raw.startswith(prefix) and raw[len(prefix) : len(prefix) + 1] in (b"", b"/") and not _is_ours(raw):
        return raw[len(prefix) :]
    return raw


def _is_ours(raw: bytes) -> bool:
    return raw.split(b"/", 2)[1] in _OURS


def _is_normal(raw: bytes) -> bool:
    """Return whether a raw path has the form for matching already, as those of most requests have."""
    return (
        b"%" not in raw
        and b"//" not in raw
        and not raw.endswith(b"/")
        and (raw.count(b"/") <= _PLAIN_SLASHES or not raw.startswith((b"/api/v1/task", b"/v1/models/")))
    )


def _task_segments(segments: list[bytes]) -> list[bytes]:
    """Return the id of a task as one segment, then the action if there is one."""
    if segments[-1] in _ACTIONS:
        return [b"%2F".join(segments[:-1]), segments[-1]]
    return [b"%2F".join(segments)]


def _model_segments(segments: list[bytes]) -> list[bytes]:
    """Return the name of a model as one segment, then what follows it."""
    is_version = len(segments) > 2 and segments[-2] == b"versions"
    end = -1 if segments[-1] == b"predictions" else -2 if is_version else len(segments)
    return [b"%2F".join(segments[:end]), *segments[end:]]


def _decoded(segment: bytes) -> str:
    return unquote(_KEPT.sub(_kept, segment).decode("ascii", "replace"))


def _kept(match: re.Match[bytes]) -> bytes:
    return b"%252F" if match[1] in (b"2F", b"2f") else b"%2525"
