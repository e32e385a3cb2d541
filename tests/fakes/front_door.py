"""A small application behind the service's own server, for tests of what stands before the application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from receiver.asgi import read_body
from receiver.errors import RingbackError
from receiver.serving.connection_limits import ConnectionLimits
from receiver.serving.connections import Connections
from tests.fakes.servers import served

SHORT = {
    "first_byte_seconds": 0.3,
    "headers_seconds": 0.3,
    "body_seconds": 0.3,
    "unread_seconds": 0.3,
    "keepalive_seconds": 0.5,
}
"""Bounds in tenths of seconds, where the end of one is waited for."""


@dataclass
class FrontDoor:
    """The server's URL and state, and what the application saw."""

    url: str = ""
    connections: Connections = field(default_factory=lambda: Connections(ConnectionLimits()))
    requests: list[str] = field(default_factory=list)
    bodies: list[int] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a test to let requests for `/wait` end."""
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request for `/wait` has begun."""
    disconnects: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    @property
    def held(self) -> int:
        """Bytes that the connections hold of requests that the application does not have."""
        return sum(each.unfinished_bytes for each in self.connections.connections)  # type: ignore[union-attr]

    async def until_empty(self) -> None:
        """Wait until no connection is open."""
        async with asyncio.timeout(10):
            while self.connections.connections:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.01)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as its path says."""
        if scope["type"] != "http":
            await no_lifespan(receive, send)
            return
        path = scope["path"]
        self.requests.append(path)
        match path:
            case "/wait":  # a long poll, that watches for the end of the connection
                self.waiting.set()
                await self._wait(receive)
                await _reply(send, 200, b"waited")
            case "/big":
                await _reply(send, 200, bytes(8_000_000))
            case "/unread":  # answers before the body is there
                await _reply(send, 401, b"no")
            case "/closing":
                await _reply(send, 413, b"too large", close=True)
            case "/broken":  # ends before its body
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            case "/late":  # does not ask for the body before the gate opens
                await self.gate.wait()
                await self._read(scope, receive, send)
            case "/body":
                await self._read(scope, receive, send)
            case "/keep":  # keeps its body until the gate opens
                await self._read(scope, receive, send, keep=True)
            case _:
                await _reply(send, 200, path.encode())

    async def _wait(self, receive: Receive) -> None:
        watching = asyncio.create_task(_disconnected(receive))
        opened = asyncio.create_task(self.gate.wait())
        await asyncio.wait({watching, opened}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            self.disconnects.put_nowait("/wait")
        watching.cancel()
        opened.cancel()

    async def _read(self, scope: Scope, receive: Receive, send: Send, *, keep: bool = False) -> None:
        query = scope["query_string"].decode()
        try:
            body = await read_body(scope, receive, 32_000_000, owner=query or None, inbound=query == "inbound")
        except RingbackError as error:
            self.disconnects.put_nowait(error.code)
            await _reply(send, error.status, error.message.encode())
            return
        self.bodies.append(len(body))
        if keep:
            self.waiting.set()
            await self.gate.wait()
        await _reply(send, 200, b"%d" % len(body))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _reply(send: Send, status: int, body: bytes, *, close: bool = False) -> None:
    headers = [(b"content-length", b"%d" % len(body)), *([(b"connection", b"close")] if close else [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def no_lifespan(receive: Receive, send: Send) -> None:
    """Answer what a server asks of an application that has nothing to begin and to end."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


@asynccontextmanager
async def front_door(**limits: Any) -> AsyncIterator[FrontDoor]:
    """Serve the application with these `ConnectionLimits`."""
    door = FrontDoor()

    def keep_state(connections: Connections) -> None:
        door.connections = connections

    async with served(door, limits=ConnectionLimits(**limits), state=keep_state) as door.url:
        yield door
        door.gate.set()
