"""What goes on with a response after the application has returned: a stream or a long poll, which may take long.

What the request has passed on its way (middleware, routes, the endpoint) would otherwise be held as long.
"""

from collections.abc import Callable
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from receiver.asgi import AFTERWARDS, Afterwards
from receiver.serving.lean_event import LeanEvent

_KEPT = ("type", "method", "client", "route")
"""Of the scope of a request whose response goes on: five at most, for a sixth would make it twice as large."""
_LOGGED = ("http_version", "path", "query_string")
"""What uvicorn's own access log needs besides; the service has another."""


class WithAfterwards:
    """Responds to one request, and offers the extension `AFTERWARDS` to the application."""

    __slots__ = ("_app", "_cycle", "_goes_on")

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle, goes_on: Callable[[], None]) -> None:
        """Begin; `goes_on` is called when the application has returned and the response goes on."""
        self._app = app
        self._cycle = cycle
        self._goes_on = goes_on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application respond, and then what it has left to do afterwards."""
        given: list[Afterwards] = []
        scope["extensions"][AFTERWARDS] = {"go_on": given.append}
        await self._app(scope, receive, send)
        if given:
            names = _KEPT + _LOGGED if self._cycle.access_log else _KEPT
            kept = {name: scope[name] for name in names if name in scope}
            scope.clear()
            scope.update(kept)
            self._goes_on()
            rest = _Rest(self._cycle, send)
            going_on = given.pop()(rest)
            del receive, send, kept, names, given
            try:
                await going_on
            finally:
                rest.close()


class _Rest:
    """The rest of the response that a cycle makes."""

    __slots__ = ("_cycle", "_leave", "send")

    def __init__(self, cycle: RequestResponseCycle, send: Send) -> None:
        self.send = send
        self._cycle = cycle
        self._leave: Callable[[], None] | None = None

    def when_gone(self, leave: Callable[[], None]) -> None:
        """Call `leave`, and no earlier one, when the client is gone; at once if it is."""
        self._leave = leave
        cast("LeanEvent", self._cycle.message_event).when_set = self._check
        self._cycle.flow.resume_reading()  # or the end of the connection would not be seen
        self._check()

    def close(self) -> None:
        """Call nothing any more, and so hold nothing."""
        cast("LeanEvent", self._cycle.message_event).when_set = None

    def _check(self) -> None:
        if self._cycle.disconnected:
            if self._leave is not None:
                self._leave()
        elif self._cycle.body:  # nothing reads it, and what is kept of it would pause the reading
            self._cycle.body = bytearray()
            self._cycle.flow.resume_reading()
