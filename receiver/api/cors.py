"""CORS: lets web pages of the origins in `RINGBACK_CORS_ORIGINS` call the API from the browser.

Cookies are never allowed: a page sends an API key, as every client does. Providers' webhooks and the paths for
operators are not for pages, and get no such headers.
"""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from receiver.asgi import see_answer

_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST")
_READABLE = (
    "X-Request-Id",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "Retry-After",
    "X-Idempotency-Replayed",
)
"""The headers of a response that a page may read."""
_NOT_FOR_PAGES = ("/hooks/", "/metrics/", "/livez/", "/readyz/")


class CorsMiddleware:
    """Answers preflight requests, and adds CORS headers to the responses of the API, errors included.

    A page may send any header: what a client library adds of its own must not stop the request, and without cookies no
    header has power by itself.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._with_cors = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=["*"],
            allow_private_network=True,
            expose_headers=_READABLE,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        is_for_pages = scope["type"] == "http" and not _path(scope).startswith(_NOT_FOR_PAGES)
        if is_for_pages:
            see_answer(scope)
        await (self._with_cors if is_for_pages else self._app)(scope, receive, send)


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return f"{path.removeprefix(scope.get('root_path', ''))}/"
