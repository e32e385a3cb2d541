"""The service's ASGI application: Starlette's, with a short way for the requests that come most often.

An inbound webhook takes nothing from most of what other requests pass: its path needs no change, it is for no page,
and its endpoint answers each method and error itself. All that, with Starlette's router, took several per cent of the
processor time of one.
"""

import re
from collections.abc import Awaitable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from receiver.api.answer_headers import AnswerHeadersMiddleware
from receiver.api.request_times import is_answered
from receiver.api.routes import HOOK, HOOK_WITH_TOKEN, Inbound, report_bug

_SEGMENT = rb"([!-$&-.0->@-~]+)"
"""One that is the same in every form of a path: in ASCII, with nothing that is encoded."""
_HOOK = re.compile(rb"/hooks/%b/%b(?:/%b)?" % (_SEGMENT, _SEGMENT, _SEGMENT))
_ACCOUNTS = b"accounts"
"""In the place of a task's id: another route's."""


class Application(Starlette):
    """The service's application. Without `direct`, all requests go one way: that of Starlette."""

    def __init__(self, *, direct: bool = True, **more: Any) -> None:
        super().__init__(**more)
        inbound = Inbound()
        self._is_direct = direct
        self._routes = (Route(HOOK, inbound), Route(HOOK_WITH_TOKEN, inbound))
        self._with_headers = AnswerHeadersMiddleware(self._receive)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the lifespan."""
        parameters = _hook_parameters(scope) if self._is_direct and scope["type"] == "http" else None
        if parameters is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        scope["path_params"] = parameters
        scope["route"] = self._routes["token" in parameters]
        try:
            await self._with_headers(scope, receive, send)
        except Exception as error:  # as Starlette's outermost middleware does
            has_begun = is_answered()
            response = await report_bug(Request(scope), error)
            if not has_begun:
                await response(scope, receive, send)
            raise

    def _receive(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        answered: Awaitable[None] = self.state.inbound(scope, receive, send)
        return answered


def _hook_parameters(scope: Scope) -> dict[str, str] | None:
    """Return the parameters of an inbound webhook's path; None for another path, or one in another form."""
    raw: bytes = scope.get("raw_path") or b""
    found = _HOOK.fullmatch(raw.removeprefix(scope.get("root_path", "").encode()))
    if found is None:
        return None
    provider, task_id, token = found.groups()
    parameters = {"provider": provider.decode(), "task_id": task_id.decode()}
    if token is not None:
        if task_id == _ACCOUNTS:
            return None
        parameters["token"] = token.decode()
    return parameters
