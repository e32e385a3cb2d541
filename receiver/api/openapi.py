"""`GET /openapi.json`: the description of the API, for programs and for the reference.

It needs no key: it says what the service can do and nothing of what it does. It is made when it is first asked for, so
that no start takes longer, and once a process; only the address in `servers` is the reader's own.
"""

import asyncio
import hashlib
import re
from collections.abc import Sequence

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from receiver.asgi import PEER

_HOST = re.compile(r"[A-Za-z0-9._~-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
"""A name or an address, with a port. Any other is not repeated in an answer."""
_FORWARDED_HOST = "x-forwarded-host"
_CACHED = {"cache-control": "no-cache", "vary": f"Host, {_FORWARDED_HOST}, X-Forwarded-Proto"}


async def get_description(request: Request) -> Response:
    """Return the description of the API as OpenAPI 3.1, with the address that it was read from.

    It needs no key, for it has nothing secret. With `If-None-Match` it is answered only if it has changed.
    """
    document = await read_description(request)
    servers = orjson.dumps([{"url": reader_address(request), "description": "where this document was read"}])
    etag = f'"{hashlib.sha256(document + servers).hexdigest()[:32]}"'
    headers = {"etag": etag, **_CACHED}
    if etag in given_tags(request):
        return Response(status_code=304, headers=headers)
    body = b'%b,"servers":%b}' % (document[:-1], servers)
    return Response(body, headers=headers, media_type="application/json")


async def read_description(request: Request) -> bytes:
    """Return the description as JSON, without `servers`: made at the first question, in a thread."""
    state = request.app.state
    if not hasattr(state, "description"):
        state.description = asyncio.create_task(asyncio.to_thread(_described, state.described_routes))
    document: bytes = await asyncio.shield(state.description)
    return document


def _described(routes: Sequence[BaseRoute]) -> bytes:
    # Imported here, so that a start does not wait for two hundred models of which most processes need none.
    from receiver.api.description.document import build_document

    return orjson.dumps(build_document(routes))


def given_tags(request: Request) -> set[str]:
    """Return the tags of `If-None-Match`."""
    given = ",".join(request.headers.getlist("if-none-match")).split(",")
    return {each.strip().removeprefix("W/") for each in given}


def reader_address(request: Request) -> str:
    """Return the address of the service as the reader wrote it; a path alone if that is not known."""
    root = request.scope.get("root_path", "")
    host = request.headers.get("host", "")
    peer = (request.scope.get("extensions") or {}).get(PEER)
    if peer is not None and peer["is_trusted"]:
        host = request.headers.get(_FORWARDED_HOST, host).split(",")[0].strip()
    return f"{request.scope['scheme']}://{host}{root}" if _HOST.fullmatch(host) else root or "/"
