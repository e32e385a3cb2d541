"""Measures how long requests take, by the route that they matched and never by their path: clients choose paths.

The time ends with the head of the answer: a stream has none other, and what a client reads slowly is not the service's.
"""

import time
from contextvars import ContextVar
from functools import cache

from starlette.types import Scope

from receiver.telemetry.metrics import http_seconds, timed

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNMATCHED = "unmatched"
"""The route of a request for a path where nothing is, or that a middleware answers."""

_began: ContextVar[float | None] = ContextVar("began", default=None)
"""When the present request began, until its answer does. Not in the scope: one more name there makes it much larger."""


def begin() -> None:
    """Note that a request begins now."""
    _began.set(time.perf_counter())


def observe(scope: Scope, status: int) -> None:
    """Observe a request whose answer begins now; do nothing if that was done, or it was not seen to begin."""
    if (began := _began.get()) is None:
        return
    _began.set(None)
    # Starlette's router notes the route that it has chosen.
    route = scope.get("route")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    path = _UNMATCHED if route is None else route.path
    timed(http_seconds, path, method, _status_class(status)).observe(time.perf_counter() - began)


def is_answered() -> bool:
    """Return whether the answer to the present request has begun."""
    return _began.get() is None


@cache
def _status_class(status: int) -> str:
    return f"{status // 100}xx" if 100 <= status < 600 else "other"
