"""Headers that every answer of the service has, whatever path, status and dialect.

A browser must not guess that an answer is a page (`nosniff`), and no cache may keep one (`no-store`): it may
hold a secret that is returned once. What a provider says of the caching of its own answers is left as it is.
"""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NO_SNIFF = (b"x-content-type-options", b"nosniff")
_CACHE_CONTROL = b"cache-control"
HEADERS = (_NO_SNIFF, (_CACHE_CONTROL, b"no-store"))
"""The headers: a constant, so that they cost nothing."""


class AnswerHeadersMiddleware:
    """Adds the headers to each answer. It adds no coroutine to a request: it is on the way of every webhook."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle one request."""

        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                _add_headers(message)
            return send(message)

        return self._app(scope, receive, send_with_headers)


def _add_headers(start: Message) -> None:
    headers = start.get("headers", ())
    is_stated = any(name == _CACHE_CONTROL for name, _ in headers)
    start["headers"] = [*headers, _NO_SNIFF] if is_stated else [*headers, *HEADERS]
