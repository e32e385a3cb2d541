"""Asks the API within this process, with the key of the session: a page shows what a program would read.

A question passes everything that a request passes: the scope, the key's rate limit, the names of the query, the room
for large answers, the actor of the audit log, the idempotency key. Only the key itself is not looked for again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import orjson
from msgspec import Struct, field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from receiver.api.endpoint import EndpointHandler, RouteEndpoint
from receiver.api.keys_in_use import Principal
from receiver.api.routes import routes
from receiver.asgi import end_within
from receiver.hidden_fields import HidesFields
from receiver.large_bodies import read_by_size

QueryValues = Mapping[str, Any] | Iterable[tuple[str, Any]]
Body = Mapping[str, Any] | bytes
"""Bytes are JSON as a person wrote it: the API reads it, and says what is wrong with it."""


@dataclass(slots=True)
class ApiRefusal(Exception):
    """The API answered with an error: its HTTP status, and its error object."""

    status: int
    error: Mapping[str, Any]
    retry_after: str | None = None

    @property
    def message(self) -> str:
        """What is wrong, in words."""
        return str(self.error.get("message") or f"HTTP {self.status}")


class Question(HidesFields, Struct, frozen=True):
    """A request to an endpoint of the API: `path` has the parameters of its path."""

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"headers", "body"})

    handler: EndpointHandler
    path: Mapping[str, str] = field(default_factory=dict)
    query: QueryValues = ()
    body: Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@cache
def _endpoints() -> dict[EndpointHandler, tuple[str, str, RouteEndpoint]]:
    """Return the method, the path and the endpoint by which programs reach each handler."""
    found: dict[EndpointHandler, tuple[str, str, RouteEndpoint]] = {}
    for route in routes():
        served_by = getattr(getattr(route, "endpoint", None), "__self__", None)
        if isinstance(route, Route) and isinstance(served_by, RouteEndpoint):
            method = next(iter((route.methods or {"GET"}) - {"HEAD"}))
            found.setdefault(served_by.handler, (method, route.path, served_by))
    return found


async def ask(request: Request, principal: Principal, question: Question) -> Any:
    """Return the `data` of the API's answer. Raises `ApiRefusal`."""
    response = await respond(request, principal, question)
    assert isinstance(response, Response)  # noqa: S101 - streams are asked for by `respond`
    content = bytes(response.body)
    answer = await read_by_size(len(content), lambda: orjson.loads(content))
    if response.status_code < 400:
        return answer["data"]
    error = answer.get("error") or {"message": answer.get("message")}
    raise ApiRefusal(response.status_code, error, response.headers.get("retry-after"))


async def respond(request: Request, principal: Principal, question: Question) -> ASGIApp:
    """Return the API's response itself."""
    method, template, endpoint = _endpoints()[question.handler]
    parameters = {name: quote(value, safe="") for name, value in question.path.items()}
    path = request.scope.get("root_path", "") + template.format(**parameters)
    given = question.body
    body = given if isinstance(given, bytes) else b"" if given is None else orjson.dumps(given)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **question.headers}

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        **request.scope,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": urlencode(_pairs(question.query)).encode(),
        "path_params": parameters,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    end_within(scope)  # the answer becomes part of a page
    return await endpoint.serve(Request(scope, receive), principal)


def _pairs(query: QueryValues) -> list[tuple[str, Any]]:
    return list(query.items()) if isinstance(query, Mapping) else list(query)
