"""The live stream for one client: Server-Sent Events, for as long as the client reads and its key is valid."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from receiver.api.endpoint import Call
from receiver.asgi import ABORT, ResponseRest, afterwards, answer_budget
from receiver.clock import monotonic
from receiver.domain.server_sent import comment
from receiver.errors import NotAuthenticated, RingbackError
from receiver.events.stream import Follower
from receiver.storage.events import EventFilter
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import counted, exceptions, streams_open

KEEP_ALIVE_SECONDS = 15.0
"""A client to which nothing was written for this long gets a comment: proxies end a response that is silent."""
STALLED_SECONDS = 20.0
"""A client that does not read what was sent for this long is disconnected."""
_CHUNK_BYTES = 64 * 1024
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # otherwise nginx buffers events until its buffer is full
]

_END: Message = {"type": "http.response.body", "body": b"", "more_body": False}

log = get_logger("api.event_stream")


class _StalledError(Exception):
    """The client does not read."""


class EventStream:
    """The response to one client, as an ASGI application: `greeting`, then the events after a position.

    It holds nothing of the request, which the server releases when it can go on with the stream by itself.
    """

    __slots__ = ("_abort", "_after", "_budget", "_client", "_greeting", "_principal", "_services", "_wanted")

    def __init__(self, call: Call, wanted: EventFilter, after: int, greeting: bytes) -> None:
        scope = call.request.scope
        extensions: dict[str, Any] = scope.get("extensions") or {}
        self._abort: Callable[[], None] | None = extensions.get(ABORT, {}).get("abort")
        self._budget = answer_budget(scope)
        self._client = scope.get("client")
        self._services = call.services
        self._principal = call.principal
        self._wanted = wanted
        self._after = after
        self._greeting = greeting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client disconnects, stalls or loses its key, or the service stops."""
        goes_on = False
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if scope["method"] == "HEAD":
                await send(_END)
            elif (go_on := afterwards(scope)) is not None:
                go_on(self._go_on)
                goes_on = True
            else:
                async with _Within(receive, send) as rest:
                    await self._serve(rest)
        finally:
            if not goes_on:
                self._services.quotas.leave_stream(self._wanted.organization_id)

    async def _go_on(self, rest: ResponseRest) -> None:
        try:
            await self._serve(rest)
        except Exception:
            counted(exceptions, "request").inc()  # no middleware sees it here; the server logs it
            raise
        finally:
            self._services.quotas.leave_stream(self._wanted.organization_id)

    async def _serve(self, rest: ResponseRest) -> None:
        """Send events until the stream ends, and complete the response if its client reads."""
        streams_open.inc()
        try:
            with (
                self._services.streams.follow(self._wanted, self._after) as follower,
                self._services.authenticator.in_use.hold(self._principal),
            ):
                rest.when_gone(follower.leave)
                await self._send_events(follower, rest.send)
        except _StalledError:
            await self._end_stalled(rest)
            return
        except NotAuthenticated as ended:
            log.info("stream ended with its key", client=self._client)
            try:
                await _write(rest.send, comment(ended.message))
            except _StalledError:
                await self._end_stalled(rest)
                return
        except RingbackError as error:
            log.info("stream ended by an error", error_code=error.code, error=str(error))
        finally:
            streams_open.dec()
        await rest.send(_END)

    async def _send_events(self, follower: Follower, send: Send) -> None:
        await _write(send, self._greeting)
        keep_alive_at = monotonic() + KEEP_ALIVE_SECONDS
        while not follower.closed:
            try:
                frames = await follower.read(self._hold)
            finally:
                if self._budget is not None:
                    self._budget.give_back()  # not held while the client reads: that may take long
            for chunk in _chunks(frames):
                await _write(send, chunk)
            follower.told()
            if not frames:
                # Events that the filter hides wake the follower too, and are no reason to write later.
                left = keep_alive_at - monotonic()
                if left > 0 and await follower.wait(left):
                    continue
                # With the position, so that a client whose filter matches little does not resume from long ago.
                await _write(send, comment("keep-alive", str(follower.position)))
            keep_alive_at = monotonic() + KEEP_ALIVE_SECONDS

    async def _hold(self, size: int) -> None:
        if self._budget is not None:
            await self._budget.take(self._wanted.organization_id, size)

    async def _end_stalled(self, rest: ResponseRest) -> None:
        """Abort the connection of a client that does not read: closing it properly would wait for the client."""
        log.info("stalled stream client disconnected", client=self._client)
        if self._abort is not None:
            gone = asyncio.Event()
            self._abort()
            rest.when_gone(gone.set)
            await gone.wait()


class _Within:
    """The rest of a response within the application, where the server has no offer to go on afterwards."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.send = send
        self._receive = receive
        self._leave: Callable[[], None] = lambda: None
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "_Within":
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()

    def when_gone(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        if self._watching is not None and self._watching.done():
            leave()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()


async def _write(send: Send, body: bytes) -> None:
    try:
        async with asyncio.timeout(STALLED_SECONDS):
            await send({"type": "http.response.body", "body": body, "more_body": True})
    except TimeoutError:
        raise _StalledError from None


def _chunks(frames: Sequence[bytes]) -> Iterator[bytes]:
    """Join small frames into chunks of bounded size, so that many frames cost few writes."""
    chunk: list[bytes] = []
    size = 0
    for frame in frames:
        if chunk and size + len(frame) > _CHUNK_BYTES:
            yield b"".join(chunk)
            chunk, size = [], 0
        chunk.append(frame)
        size += len(frame)
    if chunk:
        yield b"".join(chunk)
