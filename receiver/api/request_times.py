"""Measures how long requests take, by the route that they matched and never by their path: clients choose paths.

The time ends with the head of the answer: a stream has none other, and what a client reads slowly is not the service's.
"""

import time
from collections.abc import Awaitable
from functools import cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver.telemetry.metrics import http_seconds, timed

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNMATCHED = "unmatched"
"""The route of a request for a path where nothing is, or that a middleware answers."""


class RequestTimesMiddleware:
    """Observes each request once, whatever its status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        is_answered = False

        def send_and_observe(message: Message) -> Awaitable[None]:
            nonlocal is_answered
            if not is_answered and message["type"] == "http.response.start":
                is_answered = True
                _observe(scope, message["status"], time.perf_counter() - began)
            return send(message)

        try:
            await self._app(scope, receive, send_and_observe)
        except Exception:
            if not is_answered:  # what is outside of this answers with 500
                _observe(scope, 500, time.perf_counter() - began)
            raise


def _observe(scope: Scope, status: int, seconds: float) -> None:
    # Starlette's router notes the route that it has chosen.
    route = scope.get("route")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    timed(http_seconds, _UNMATCHED if route is None else route.path, method, _status_class(status)).observe(seconds)


@cache
def _status_class(status: int) -> str:
    return f"{status // 100}xx" if 100 <= status < 600 else "other"
