"""`POST /mcp`: checks a request as every endpoint does, and hands it to the package `mcp` if that is installed."""

import asyncio
import sys
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from models import Scope
from receiver.api.dialects import NATIVE
from receiver.api.endpoint import Call, endpoint
from receiver.asgi import read_body
from receiver.domain.json_bounds import MOST_REQUEST_VALUES, has_more_values
from receiver.errors import NotAllowed, NotFound, TooLarge
from receiver.mcp.in_process import InProcessApi
from receiver.mcp.service_api import INSTALL
from receiver.setting_values import ANY_ORIGIN, read_origin

PATH = "/mcp"
MOST_BYTES = 1024 * 1024
"""Of a request. It is read on the event loop, and no model writes as much."""
_SERVER = "receiver.mcp.streamable_http"


def mcp_route() -> Route:
    """Return the route of `/mcp`. A GET, which would only hold a connection open without a session, is 405."""
    return Route(PATH, endpoint(_serve, NATIVE, Scope.READ, passes_on=True), methods=["POST"])


async def _serve(call: Call) -> ASGIApp:
    _check_origin(call)
    server = await _server()
    request = call.request
    body = await read_body(request.scope, request.receive, MOST_BYTES, setting=PATH, owner=call.organization_id)
    if has_more_values(body, MOST_REQUEST_VALUES):
        raise TooLarge(f"the body has more than {MOST_REQUEST_VALUES} values", code="body_too_complex")
    api = InProcessApi(call)

    async def answer(scope: Connection, receive: Receive, send: Send) -> None:
        await server.serve_request(api, MOST_BYTES, scope, _again(body, receive), send)

    return answer


async def _server() -> Any:
    """Return the module that needs the package, imported apart from the event loop: it takes a second.

    Raises `NotFound` if the package is not installed.
    """
    if (module := sys.modules.get(_SERVER)) is not None:
        return module
    try:
        return await asyncio.to_thread(import_module, _SERVER)
    except ModuleNotFoundError as error:
        raise NotFound(f"the tools for agents are not installed here (no module {error.name}): {INSTALL}") from None


def _check_origin(call: Call) -> None:
    """Raise `NotAllowed` for a page of an origin that is not allowed: its name may be made to mean this address."""
    origin = call.request.headers.get("origin")
    settings = call.services.settings
    if origin is None or ANY_ORIGIN in settings.allowed_origins:
        return
    if origin.lower() not in (*settings.allowed_origins, _own_origin(settings.public_url)):
        raise NotAllowed(
            "pages of this origin may not use this path (RINGBACK_CORS_ORIGINS)", code="origin_not_allowed"
        )


def _own_origin(public_url: str | None) -> str | None:
    if public_url is None:
        return None
    parts = urlsplit(public_url)
    return read_origin(f"{parts.scheme}://{parts.netloc}")


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what receives a body that was read before, and then what comes on the connection."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again
