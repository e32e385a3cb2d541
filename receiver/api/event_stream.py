"""One reader of the live stream: Server-Sent Events, for as long as it reads and may."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from starlette.types import Receive, Scope, Send

from receiver.api.endpoint import Call
from receiver.asgi import ABORT
from receiver.domain.server_sent import comment
from receiver.errors import RingbackError
from receiver.events.stream import Follower
from receiver.storage.events import EventFilter
from receiver.telemetry import get_logger, streams_open

KEEP_ALIVE_SECONDS = 15.0
STALLED_SECONDS = 20.0
"""How long a reader may leave what was written to it unread."""
_CHUNK_BYTES = 64 * 1024
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect events until its buffer is full
]

log = get_logger("api.event_stream")


class _StalledError(Exception):
    """The reader does not read."""


class EventStream:
    """The answer to one reader, as an ASGI application: `greeting`, then what comes after a position."""

    def __init__(self, call: Call, wanted: EventFilter, after: int, greeting: bytes) -> None:
        self._services = call.services
        self._headers = call.request.headers
        self._wanted = wanted
        self._after = after
        self._greeting = greeting
        self._check_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until the reader goes, stalls or may no longer read, or the service stops."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        if scope["method"] == "HEAD" or await self._is_read(scope, receive, send):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _is_read(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Tell the reader all there is until an end comes; say whether it took it."""
        with self._services.streams.follow(self._wanted, self._after) as follower, streams_open.track_inprogress():
            leaving = asyncio.create_task(_leaves(receive, follower))
            try:
                await self._tell(follower, send)
            except _StalledError:
                log.info("a reader of the stream does not read, and is dropped", client=scope.get("client"))
                await _abort(scope, leaving)
                return False
            except RingbackError as error:
                log.info("a stream ends; its reader may come again", reason=error.message)
            finally:
                leaving.cancel()
        return True

    async def _tell(self, follower: Follower, send: Send) -> None:
        await _write(send, self._greeting)
        while not follower.closed:
            await self._check_key()
            frames = await follower.read()
            for chunk in _chunks(frames):
                await _write(send, chunk)
            if not frames and not await follower.wait(KEEP_ALIVE_SECONDS):
                # With its number, so that a reader whose filter lets little through does not resume from long ago.
                await _write(send, comment("keep-alive", str(follower.position)))

    async def _check_key(self) -> None:
        """Raise `NotAuthenticated` if the key was revoked since: a stream may outlive it."""
        now = asyncio.get_running_loop().time()
        if now >= self._check_at:
            self._check_at = now + KEEP_ALIVE_SECONDS
            await self._services.authenticator.principal(self._headers)


async def _leaves(receive: Receive, follower: Follower) -> None:
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
    """Put small frames together, so that many cost few writes, and one write holds little."""
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


async def _abort(scope: Scope, leaving: "asyncio.Task[None]") -> None:
    """Cut the connection: closing it properly would wait for the reader."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    abort: Callable[[], None] | None = extensions.get(ABORT, {}).get("abort")
    if abort is not None:
        abort()
        await leaving
