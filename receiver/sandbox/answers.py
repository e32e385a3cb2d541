"""HTTP responses in PiAPI's form, and the faulty responses of a provider that is broken."""

import asyncio
import contextlib
from typing import Any

import httpx
import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from receiver.sandbox.body_forms import WrittenBody
from receiver.sandbox.script import Script, SubmitBehaviour

_NONSENSE = "<html><body><h1>Just a moment...</h1></body></html>"
_BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"


def as_json(content: Any, status: int = 200, *, retry_after: int | None = None) -> Response:
    """Return a response with a JSON body, and with `Retry-After: {retry_after}` (seconds) unless it is None."""
    headers = None if retry_after is None else {"retry-after": str(retry_after)}
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def refusal(status: int, message: str, *, retry_after: int | None = None) -> Response:
    """Return PiAPI's error `{"code", "message"}`, with `Retry-After: {retry_after}` (seconds) unless it is None."""
    return as_json({"code": status, "message": message}, status, retry_after=retry_after)


def model_refusal(status: int, message: str, *, retry_after: int | None = None) -> Response:
    """Return the error `{"error": {"message", "type", "code"}}` of the paths under `/v1`."""
    error = {"message": message, "type": "invalid_request_error", "code": status}
    return as_json({"error": error}, status, retry_after=(retry_after or 1) if status == 429 else None)


def written(body: WrittenBody) -> Response:
    """Return a 200 with a body that is written already."""
    return Response(body.content, headers=body.headers, media_type="application/json")


def not_found() -> Response:
    """Return PiAPI's response for an unknown task id."""
    return refusal(404, "record not found")


def outage(status: int, retry_after: int) -> Response:
    """Return the response of a provider during an outage; only a 429 has `Retry-After`."""
    return refusal(status, f"outage: {status}", retry_after=retry_after if status == 429 else None)


def nonsense() -> Response:
    """Return a 200 with an HTML page, as an intermediary (a CDN, a captive portal) may insert."""
    return HTMLResponse(_NONSENSE)


def bad_gateway() -> Response:
    """Return the 502 of a proxy that received no response from the provider."""
    return HTMLResponse(_BAD_GATEWAY, 502)


async def hang(request: Request, seconds: float) -> None:
    """Wait for `seconds`, or until the client disconnects: otherwise the server could not stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await request.receive())["type"] != "http.disconnect":
                pass


class CutConnection(Response):
    """Closes the connection instead of sending a response."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Abort the transport without sending anything.

        ASGI has no message for this. Under uvicorn, `receive` is a method of the object that holds the transport.
        Without such a transport (another server, or an in-process client) send an incomplete response instead.
        """
        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        if transport is None:
            headers = [(b"content-type", b"application/json"), (b"content-length", b"1024")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"code":', "more_body": True})
            raise httpx.RemoteProtocolError("the sandbox closed the connection, as the task's script asked")
        transport.abort()
        # uvicorn logs an error for a missing response unless it has noticed the disconnect first.
        while (await receive())["type"] != "http.disconnect":
            pass


async def unless_broken(answer: Response, request: Request, behaviour: SubmitBehaviour, script: Script) -> Response:
    """Return the answer to a create call that made a task, or what its script has in the place of one."""
    match behaviour:
        case "bad_gateway":
            return bad_gateway()
        case "cut":
            return CutConnection()
        case "hang":
            await hang(request, script.hang_seconds)
    return answer
