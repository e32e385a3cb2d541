"""Answers in PiAPI's form, and the ones that a provider never means to give."""

import asyncio
import contextlib
from typing import Any

import httpx
import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

_NONSENSE = "<html><body><h1>Just a moment...</h1></body></html>"
_BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"


def as_json(content: Any, status: int = 200) -> Response:
    """Return an answer with a JSON body."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def refusal(status: int, message: str, *, retry_after: int | None = None) -> Response:
    """Return PiAPI's `{"code", "message"}`, with `Retry-After` (seconds) if there is one."""
    answer = as_json({"code": status, "message": message}, status)
    if retry_after is not None:
        answer.headers["retry-after"] = str(retry_after)
    return answer


def not_found() -> Response:
    """Return what PiAPI says of a task that it does not know."""
    return refusal(404, "record not found")


def outage(status: int, retry_after: int) -> Response:
    """Return the answer of a provider that is down; only a 429 says when to come again."""
    return refusal(status, f"outage: {status}", retry_after=retry_after if status == 429 else None)


def nonsense() -> Response:
    """Return a 200 that is not PiAPI's: a page that something on the way put in."""
    return HTMLResponse(_NONSENSE)


def bad_gateway() -> Response:
    """Return what a proxy says when the provider's answer did not reach it."""
    return HTMLResponse(_BAD_GATEWAY, 502)


async def hang(request: Request, seconds: float) -> None:
    """Keep the client waiting; when it hangs up, so do we, or a server could not stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await request.receive())["type"] != "http.disconnect":
                pass


class CutConnection(Response):
    """Not an answer: the connection ends where the answer should begin."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Drop the connection under the server's feet.

        ASGI has no word for this. Under uvicorn `receive` belongs to the object that holds the transport.
        Under another server, or none, an answer that breaks off is what there is.
        """
        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        if transport is None:
            headers = [(b"content-type", b"application/json"), (b"content-length", b"1024")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"code":', "more_body": True})
            raise httpx.RemoteProtocolError("the sandbox cut the connection, as it was asked to")
        transport.abort()
        # The server forgives a missing answer once it knows that the client is gone.
        while (await receive())["type"] != "http.disconnect":
            pass
