"""Passes requests for PiAPI's APIs that make no task on to PiAPI, and the answers back as they come.

The client authenticates with its Ringback key and PiAPI gets Ringback's: neither sees the other's credentials or
cookies. The answer is not tracked, unless it is a task: then the client's organization owns the task from then on.
An `Idempotency-Key` is not obeyed: the answer may be a stream, and is not kept.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Send
from starlette.types import Scope as Connection

from receiver.api.endpoint import Call, EndpointHandler
from receiver.asgi import ABORT, ClientGone
from receiver.domain.content_encoding import content_encodings, is_packed, unpack
from receiver.errors import NotAuthenticated, ProviderRefused, RingbackError, TooLarge, Unavailable
from receiver.large_bodies import read_apart, read_by_size
from receiver.providers import (
    AnswerCut,
    CallerKey,
    CallPurpose,
    ForwardedAnswer,
    ForwardedRequest,
    ForwardOutcome,
    NotForwarded,
)
from receiver.providers.registry import DEFAULT_PROVIDER
from receiver.telemetry.log import get_logger

UPLOAD_PATH = "/api/ephemeral_resource"
FORWARDED_POSTS = (
    "/v1/chat/completions",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
)
FORWARDED_GETS = ("/v1/models",)
LARGEST_TASK = 256 * 1024
"""Bytes. A longer answer is not looked at to see whether it is a task."""
STALLED_SECONDS = 60.0
"""A client that does not read what was sent for this long is disconnected."""
_PASSED_ON = ("accept", "accept-language", "openai-beta")
"""Headers of a request that concern the provider: they describe the answer that is wanted."""
_OF_BODY = ("content-type", "content-length", "content-encoding")

log = get_logger("api.passthrough")


def forwarding(path: str) -> EndpointHandler:
    """Return the endpoint that passes requests for this path on. The path is the provider's, without our own prefix."""
    return partial(_forward, path)


async def _forward(path: str, call: Call) -> "ForwardedResponse":
    request = call.request
    has_body = request.method == "POST"
    body = _RequestBody(request, call.services.settings.max_request_bytes, has_body=has_body)
    names = _PASSED_ON + (_OF_BODY if has_body else ())
    forwarded = ForwardedRequest(
        method=request.method,
        path=path,
        query=request.scope["query_string"].decode("ascii", "replace"),
        headers={name: value for name in names if (value := request.headers.get(name)) and value.isascii()},
        body=body if has_body else None,
    )
    caller = CallerKey(call.organization_id, CallPurpose.FORWARD)
    answering = asyncio.ensure_future(call.services.piapi.forward(forwarded, caller=caller))
    gone = asyncio.create_task(body.client_gone())
    try:
        outcome = await _unless_gone(answering, gone)
        if isinstance(outcome, NotForwarded):
            raise body.fault or _error(outcome)
    except BaseException:
        gone.cancel()
        raise
    return ForwardedResponse(call, path, outcome, gone)


class ForwardedResponse:
    """The provider's answer to one client, as an ASGI application. `gone` ends when the client has disconnected."""

    def __init__(self, call: Call, path: str, answer: ForwardedAnswer, gone: "asyncio.Task[None]") -> None:
        self._call = call
        self._path = path
        self._answer = answer
        self._gone = gone
        self._copy: bytearray | None = bytearray() if _may_be_task(answer) else None
        """The answer so far, if it may be a task."""
        self._adopting: asyncio.Task[None] | None = None

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Send the answer as it arrives, until it or the connection to the client ends."""
        sending = asyncio.create_task(self._send(scope, send))
        try:
            with self._call.services.authenticator.in_use.hold(self._call.principal):
                await asyncio.wait({sending, self._gone}, return_when=asyncio.FIRST_COMPLETED)
        except NotAuthenticated:
            log.info("forwarded answer ended with its key", path=self._path)
            _abort(scope)
        finally:
            self._gone.cancel()
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
            await self._answer.aclose()
            if self._adopting is not None:
                await asyncio.wait({self._adopting})

    async def _send(self, scope: Connection, send: Send) -> None:
        """Send the answer. What is broken off is not closed properly, so that no client takes it for the whole."""
        try:
            await self._send_parts(send)
        except AnswerCut as cut:
            log.warning("forwarded answer cut", path=self._path, error=str(cut))
            if scope["http_version"] == "1.0":  # a connection that is closed properly would be the end of the answer
                _abort(scope)
        except TimeoutError:
            log.info("stalled client of a forwarded answer disconnected", path=self._path)
            _abort(scope)
        else:
            await _write(send, b"", more=False)

    async def _send_parts(self, send: Send) -> None:
        headers = dict(self._answer.headers)
        if self._copy is not None:
            # Without its length the client sees the end of the answer when the task is tracked, and not before.
            headers.pop("content-length", None)
        if headers.get("content-type", "").startswith("text/event-stream"):
            headers["x-accel-buffering"] = "no"  # otherwise nginx buffers events until its buffer is full
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self._answer.status, "headers": raw})
        await _write(send, b"", more=True)  # the body may be long in coming, and the server keeps the head for it
        async for part in self._answer.body:
            self._keep(part)
            await _write(send, part, more=True)
        if self._copy is not None:
            self._adopting = asyncio.create_task(self._adopt(bytes(self._copy)))
            await asyncio.shield(self._adopting)  # the task exists and costs, even if the client is gone by now

    def _keep(self, part: bytes) -> None:
        if self._copy is not None:
            self._copy += part
            if len(self._copy) > LARGEST_TASK:
                self._copy = None

    async def _adopt(self, body: bytes) -> None:
        services = self._call.services
        try:  # Ringback asks for an answer that is not packed, and passes on what comes
            encodings = content_encodings(self._answer.headers.get("content-encoding", ""))
            if is_packed(body, encodings):
                packed = body
                body = await read_apart(lambda: unpack(packed, encodings, LARGEST_TASK))
        except RingbackError:
            return
        provider = services.piapi
        update = await read_by_size(len(body), lambda: provider.task_in_answer(body))
        if update is None:
            return
        try:
            task_id = await services.tracker.adopt_update(self._call.organization_id, DEFAULT_PROVIDER, update)
        except RingbackError as error:
            log.warning(
                "task of a forwarded answer not tracked",
                provider_task_id=update.provider_task_id,
                error_code=error.code,
                error=error.message,
            )
        else:
            services.quotas.usage.admit(self._call.organization_id, 1, len(body)).stored()
            log.info("task of a forwarded answer tracked", task_id=task_id, provider_task_id=update.provider_task_id)


class _RequestBody:
    """The client's body as it arrives, `most` bytes of it. `fault` is what ended it too early.

    Raises `TooLarge` at once if its length is known to be greater.
    """

    def __init__(self, request: Request, most: int, *, has_body: bool) -> None:
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length) > most:
            raise _too_large(f"{int(length)}", most)
        self.fault: RingbackError | None = None
        self._receive = request.receive
        self._most = most
        self._received = asyncio.Event()
        if not has_body:
            self._received.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.fault = ClientGone("the client closed the connection")
                raise self.fault
            part = message.get("body", b"")
            size += len(part)
            if size > self._most:
                self.fault = _too_large(f"more than {self._most}", self._most)
                raise self.fault
            if part:
                yield part
            if not message.get("more_body", False):
                self._received.set()
                return

    async def client_gone(self) -> None:
        """Return when the client has disconnected after it sent the whole body."""
        await self._received.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _unless_gone(answering: "asyncio.Future[ForwardOutcome]", gone: "asyncio.Task[None]") -> ForwardOutcome:
    """Return the outcome. If the client disconnects first, end the call and raise `ClientGone`."""
    waiting: set[asyncio.Future[Any]] = {answering, gone}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        raise ClientGone("the client closed the connection")
    finally:
        if not answering.done():
            answering.cancel()
            with suppress(asyncio.CancelledError):
                await answering


def _too_large(size: str, most: int) -> TooLarge:
    return TooLarge(f"the body has {size} bytes; send at most {most}, or raise RINGBACK_MAX_REQUEST_BYTES")


def _abort(scope: Connection) -> None:
    extensions: dict[str, Any] = scope.get("extensions") or {}
    abort: Callable[[], None] | None = extensions.get(ABORT, {}).get("abort")
    if abort is not None:
        abort()


def _error(outcome: NotForwarded) -> RingbackError:
    if outcome.status == Unavailable.status:
        return Unavailable(outcome.message, retry_after=max(1, round(outcome.retry_after or 1)))
    return ProviderRefused(outcome.message, status=outcome.status, code=outcome.code)


def _may_be_task(answer: ForwardedAnswer) -> bool:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" and answer.status < 300


async def _write(send: Send, body: bytes, *, more: bool) -> None:
    async with asyncio.timeout(STALLED_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": more})
