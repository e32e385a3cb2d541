"""The live stream for one client: Server-Sent Events, for as long as the client reads and its key is valid."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from starlette.types import Receive, Scope, Send

from receiver.api.endpoint import Call
from receiver.asgi import ABORT
from receiver.clock import monotonic
from receiver.domain.server_sent import comment
from receiver.errors import NotAuthenticated, RingbackError
from receiver.events.stream import Follower
from receiver.storage.events import EventFilter
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import streams_open

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

log = get_logger("api.event_stream")


class _StalledError(Exception):
    """The client does not read."""


class EventStream:
    """The response to one client, as an ASGI application: `greeting`, then the events after a position."""

    def __init__(self, call: Call, wanted: EventFilter, after: int, greeting: bytes) -> None:
        self._call = call
        self._services = call.services
        self._principal = call.principal
        self._wanted = wanted
        self._after = after
        self._greeting = greeting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client disconnects, stalls or loses its key, or the service stops."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if scope["method"] == "HEAD" or await self._serve(scope, receive, send):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._services.quotas.leave_stream(self._wanted.organization_id)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Send events until the stream ends; return whether the response can be closed properly."""
        with self._services.streams.follow(self._wanted, self._after) as follower, streams_open.track_inprogress():
            disconnect = asyncio.create_task(_watch_disconnect(receive, follower))
            try:
                with self._services.authenticator.in_use.hold(self._principal):
                    await self._send_events(follower, send)
            except _StalledError:
                return await _end_stalled(scope, disconnect)
            except NotAuthenticated as ended:
                log.info("stream ended with its key", client=scope.get("client"))
                try:
                    await _write(send, comment(ended.message))
                except _StalledError:
                    return await _end_stalled(scope, disconnect)
            except RingbackError as error:
                log.info("stream ended by an error", error_code=error.code, error=str(error))
            finally:
                disconnect.cancel()
        return True

    async def _send_events(self, follower: Follower, send: Send) -> None:
        await _write(send, self._greeting)
        keep_alive_at = monotonic() + KEEP_ALIVE_SECONDS
        while not follower.closed:
            try:
                frames = await follower.read(self._call.hold)
            finally:
                self._call.let_go()  # not held while the client reads: that may take long
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


async def _end_stalled(scope: Scope, disconnect: "asyncio.Task[None]") -> bool:
    """Abort the connection of a client that does not read; return False, for it is not closed properly."""
    log.info("stalled stream client disconnected", client=scope.get("client"))
    await _abort(scope, disconnect)
    return False


async def _watch_disconnect(receive: Receive, follower: Follower) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    follower.leave()


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


async def _abort(scope: Scope, disconnect: "asyncio.Task[None]") -> None:
    """Abort the connection: closing it properly would wait for the client."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    abort: Callable[[], None] | None = extensions.get(ABORT, {}).get("abort")
    if abort is not None:
        abort()
        await disconnect
