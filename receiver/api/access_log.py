"""The access log: one record for each request, when its answer has ended; for a stream, when the stream has."""

from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver.api.piapi_queries import CancelQuery, HistoryQuery
from receiver.api.run_schemas import JobQuery, RunQuery
from receiver.api.schemas import AuditQuery, DeliveryQuery, EventQuery, GetTask, ReportQuery, TaskQuery
from receiver.asgi import KEY, end_within
from receiver.clock import monotonic
from receiver.domain.ids import is_id
from receiver.providers.registry import provider_names
from receiver.telemetry.log import get_logger

log = get_logger("api.access_log")

HIDDEN = "***"
"""Stands for what may be a secret."""
_LONGEST_PATH, _LONGEST_QUERY, _LONGEST_AGENT = 300, 1_000, 200
_QUERIES: tuple[type[BaseModel], ...] = (
    AuditQuery,
    CancelQuery,
    DeliveryQuery,
    EventQuery,
    GetTask,
    HistoryQuery,
    JobQuery,
    ReportQuery,
    RunQuery,
    TaskQuery,
)
_OTHER_NAMES = {"attempt", "size", "pageSize"}
"""`attempt` is that of an inbound webhook's URL; the others stand for `page_size` of `HistoryQuery`."""
_NAMES = frozenset(name for query in _QUERIES for name in query.model_fields) - {"metadata"} | _OTHER_NAMES
"""The parameters of queries whose values are shown: none of them is a secret. Metadata are clients' own."""
_HOOKS = "hooks"


class AccessLogMiddleware:
    """Logs each request at `info`. It stands before all others, so it sees what they answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        end_within(scope)  # or a stream would be logged when it begins
        began, path = monotonic(), scope["path"]
        status: int | None = None
        sent = 0

        async def counting(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, counting)
        except Exception:
            status = status or 500
            raise
        finally:
            fields = _fields(scope, path.removeprefix(scope.get("root_path", "")))
            duration = round((monotonic() - began) * 1000, 1)
            log.info("request", **fields, status=status, duration_ms=duration, bytes=sent)


def _fields(scope: Scope, path: str) -> dict[str, Any]:
    client = scope.get("client")
    known = {"query": shown_query(scope["query_string"])}
    known["key_id"], known["organization"] = scope.get(KEY) or ("", "")
    agents = [value for name, value in scope["headers"] if name == b"user-agent"]
    known["user_agent"] = agents[0][:_LONGEST_AGENT].decode("latin-1") if agents else ""
    return {
        "method": scope["method"],
        "path": shown_path(path),
        "client": client[0] if client else None,
        **{name: value for name, value in known.items() if value},
    }


def shown_path(path: str) -> str:
    """Return a path without what may be a secret: below `/hooks` only a provider's name and a task's id are shown."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == [_HOOKS]:
        path = "/" + "/".join([_HOOKS, *(part if _is_known(part) else HIDDEN for part in parts[1:])])
    return path[:_LONGEST_PATH]


def shown_query(query: bytes) -> str:
    """Return a query with the values of the parameters that the API has, and without those of all others."""
    if not query:
        return ""
    pairs = parse_qsl(query[:_LONGEST_QUERY].decode("latin-1"), keep_blank_values=True)
    return "&".join(_shown_parameter(name, value) for name, value in pairs)[:_LONGEST_QUERY] or HIDDEN


def _is_known(part: str) -> bool:
    return part in provider_names() or is_id(part)


def _shown_parameter(name: str, value: str) -> str:
    if name in _NAMES:
        return f"{name}={value}"
    return f"{name}={HIDDEN}" if value else HIDDEN  # a parameter without a value may be a secret itself
