"""Headers that every answer of the service has, whatever path, status and dialect.

A browser must not guess that an answer is a page (`nosniff`), and no cache may keep one (`no-store`): it may
hold a secret that is returned once. What a provider says of the caching of its own answers is left as it is.

Each answer also has the id of its request (`X-Request-Id`): the one that a trusted proxy gave it, else a new one. And
the time until it begins is measured here, because one function that stands in for `send` costs less than two.
"""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver.api.request_times import begin, observe
from receiver.asgi import PEER
from receiver.telemetry.request_ids import begin_request

_NO_SNIFF = (b"x-content-type-options", b"nosniff")
_CACHE_CONTROL = b"cache-control"
REQUEST_ID = b"x-request-id"
HEADERS = (_NO_SNIFF, (_CACHE_CONTROL, b"no-store"))
"""The headers: a constant, so that they cost nothing."""


class AnswerHeadersMiddleware:
    """Adds the headers to each answer, and observes its time.

    It adds no coroutine to a request: it is on the way of every webhook, and an idle stream would hold it for hours.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle one request."""
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        begin()
        return self._app(scope, receive, WithHeaders(scope, begin_request(_given_id(scope)), send))


class WithHeaders:
    """Stands in for the `send` of one request: it adds the headers, and observes the time.

    A function within a function would take longer to make, and hold five times as much.
    """

    __slots__ = ("_request_id", "_scope", "_send")

    def __init__(self, scope: Scope, request_id: str, send: Send) -> None:
        self._scope = scope
        self._request_id = request_id
        self._send = send

    def __call__(self, message: Message) -> Awaitable[None]:
        """Send a message of ASGI."""
        if message["type"] == "http.response.start":
            _add_headers(message, self._request_id)
            observe(self._scope, message["status"])
        return self._send(message)


def _given_id(scope: Scope) -> bytes | None:
    """Return the id that a trusted proxy gave the request; None if there is none, or more than one."""
    peer = (scope.get("extensions") or {}).get(PEER)
    if peer is None or not peer["is_trusted"]:
        return None
    given = [value for name, value in scope["headers"] if name == REQUEST_ID]
    return given[0] if len(given) == 1 else None


def _add_headers(start: Message, request_id: str) -> None:
    headers = list(start.get("headers", ()))
    names = {name for name, _ in headers}
    headers.append(_NO_SNIFF)
    if _CACHE_CONTROL not in names:
        headers.append(HEADERS[1])
    if REQUEST_ID not in names:
        headers.append((REQUEST_ID, request_id.encode()))
    start["headers"] = headers
