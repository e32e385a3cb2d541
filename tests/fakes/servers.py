"""Any ASGI application on a loopback socket, in this loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from receiver.serving.server import Server, ServerConnection

_GRACE_SECONDS = 2.0
_TICK_SECONDS = 0.002
_TURNS = 8
"""Of the loop: more than it takes to make a connection that was accepted."""


class _Server(Server):
    """Stops when it is told to and as soon as it can, not at uvicorn's ticks of 0.1 s: every test waits for it."""

    def __init__(self, config: uvicorn.Config, app: ASGIApp) -> None:
        super().__init__(config, end_waits=lambda: _end_waits(app))
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end_waits()
        await self._stop_accepting()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - uvicorn tells nobody
                    await asyncio.sleep(_TICK_SECONDS)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    async def _stop_accepting(self) -> None:
        # asyncio forgets to close a connection whose server is closed between accepting it and making it.
        for server in self.servers:
            for listening in server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()


def _end_waits(app: ASGIApp) -> None:
    if isinstance(app, Starlette) and hasattr(app.state, "end_waits"):
        app.state.end_waits()


def bound() -> socket.socket:
    """Return a socket on a free loopback port; until somebody serves on it, a client is refused there."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken


def url_of(listening: socket.socket) -> str:
    """Return a socket's address."""
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


@asynccontextmanager
async def served(
    app: ASGIApp, listening: socket.socket | None = None, *, http: Any = ServerConnection
) -> AsyncIterator[str]:
    """Serve an app, on the given socket or on a free port; yield its address, which is good at once."""
    listening = listening or bound()
    # asyncio does this only for sockets of its own making; without it every answer waits 40 ms for an ACK.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.listen()
    config = uvicorn.Config(app, http=http, log_level="warning", ws="none")
    server = _Server(config, app)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    started = asyncio.create_task(server.ready.wait())
    await asyncio.wait({started, serving}, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        yield url_of(listening)
    finally:
        server.stop.set()
        await serving
