"""The dashboard of a process, imported when it is first asked for: the start of the service does not wait for it, and a
service whose dashboard no browser opens has no memory of it.
"""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Router
from starlette.types import Receive, Scope, Send

from receiver.api.paths import is_page
from receiver.api.routes import refuse_path

_PROGRAMS = ("/api/", "/v1/", "/hooks/", "/account/", "/metrics/", "/livez/", "/readyz/")
"""Below these an error is never a page."""

Refusal = Callable[[Request, Exception], Awaitable[Response]]


class LateDashboard:
    """Gives a router the routes of the dashboard when the first request for one of its paths comes.

    Until then it is the router's answer to paths that no route has.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._no_route = router.default
        router.default = self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request that no route has matched."""
        if scope["type"] != "http" or not is_page(_path(scope)):
            await self._no_route(scope, receive, send)
            return
        routes = await asyncio.to_thread(_routes)
        if self._router.default is self:  # else another request was first
            self._router.default = self._no_route
            self._router.routes.extend(routes)
        await self._router.app(scope, receive, send)


async def refuse(request: Request, error: Exception) -> Response:
    """Return the error for an unknown path or method: as a page where a browser asks for one."""
    wants_page = request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")
    if not wants_page or f"{_path(request.scope)}/".startswith(_PROGRAMS):
        return await refuse_path(request, error)
    refuse_page = await asyncio.to_thread(_refuse_page)
    return await refuse_page(request, error)


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


# Each imports the dashboard, which takes longer than other requests may wait: to be called in a thread.
def _routes() -> list[BaseRoute]:
    from receiver.dashboard.routes import routes

    return routes()


def _refuse_page() -> Refusal:
    from receiver.dashboard.pages import refuse_page

    return refuse_page
