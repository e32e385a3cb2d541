"""The service's ASGI application: Starlette's, with a short way for the requests that come most often.

An inbound webhook takes nothing from most of what other requests pass: its path needs no change, it is for no page,
and its endpoint answers each method and error itself. All that, with Starlette's router, took several per cent of the
processor time of one. The same holds for the create of a task or a run, where no browser may ask for it.
"""

import re
from collections.abc import Awaitable, Iterable
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from receiver.api.answer_headers import AnswerHeadersMiddleware
from receiver.api.paths import PathMiddleware
from receiver.api.request_times import is_answered
from receiver.api.routes import HOOK, HOOK_WITH_TOKEN, Inbound, report_bug

_SEGMENT = rb"([!-$&-.0->@-~]+)"
"""One that is the same in every form of a path: in ASCII, with nothing that is encoded."""
_HOOK = re.compile(rb"/hooks/%b/%b(?:/%b)?" % (_SEGMENT, _SEGMENT, _SEGMENT))
_ACCOUNTS = b"accounts"
"""In the place of a task's id: another route's."""
_CREATES = frozenset({"/api/v1/task", "/api/v1/runs"})
"""The paths of creates that have the short way."""
_NOT_NEEDED: frozenset[Any] = frozenset({AnswerHeadersMiddleware, PathMiddleware})
"""What is passed on Starlette's way and has no effect on a create, or is passed on the short way as well."""


class Application(Starlette):
    """The service's application. Without `direct`, all requests go one way: that of Starlette.

    Middleware is given to the constructor: what is added later is not passed on the short way.
    """

    def __init__(self, *, direct: bool = True, **more: Any) -> None:
        super().__init__(**more)
        inbound = Inbound()
        self._is_direct = direct
        self._routes = (Route(HOOK, inbound), Route(HOOK_WITH_TOKEN, inbound))
        self._with_headers = AnswerHeadersMiddleware(self._receive)
        self._create_with_headers = AnswerHeadersMiddleware(_create)
        has_others = any(each.cls not in _NOT_NEEDED for each in self.user_middleware)
        self._creates: dict[bytes, Route] = {} if has_others else _creates(self.routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the lifespan."""
        answering = self._short_way(scope) if self._is_direct and scope["type"] == "http" else None
        if answering is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        try:
            await answering(scope, receive, send)
        except Exception as error:  # as Starlette's outermost middleware does
            has_begun = is_answered()
            response = await report_bug(Request(scope), error)
            if not has_begun:
                await response(scope, receive, send)
            raise

    def _short_way(self, scope: Scope) -> AnswerHeadersMiddleware | None:
        """Return what answers a request that has the short way, after noting its route; None for any other."""
        raw: bytes = (scope.get("raw_path") or b"").removeprefix(scope.get("root_path", "").encode())
        parameters = _hook_parameters(raw)
        if parameters is not None:
            scope["path_params"], scope["route"] = parameters, self._routes["token" in parameters]
            return self._with_headers
        route = self._creates.get(raw) if scope["method"] == "POST" else None
        if route is None:
            return None
        scope["path_params"], scope["route"], scope["endpoint"] = {}, route, route.endpoint
        return self._create_with_headers

    def _receive(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        answered: Awaitable[None] = self.state.inbound(scope, receive, send)
        return answered


async def _create(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a create, as Starlette does with what a route leads to: that returns each error as an answer."""
    response = cast(ASGIApp, await scope["endpoint"](Request(scope, receive, send)))
    await response(scope, receive, send)


def _creates(routes: Iterable[BaseRoute]) -> dict[bytes, Route]:
    """Return the routes of creates, by their paths."""
    found = (each for each in routes if isinstance(each, Route) and "POST" in (each.methods or ()))
    return {each.path.encode(): each for each in found if each.path in _CREATES}


def _hook_parameters(raw: bytes) -> dict[str, str] | None:
    """Return the parameters of an inbound webhook's raw path; None for another path, or one in another form."""
    found = _HOOK.fullmatch(raw)
    if found is None:
        return None
    provider, task_id, token = found.groups()
    parameters = {"provider": provider.decode(), "task_id": task_id.decode()}
    if token is not None:
        if task_id == _ACCOUNTS:
            return None
        parameters["token"] = token.decode()
    return parameters
