"""ASGI applications served on loopback in the test's own event loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from receiver.serving.connection import ServerConnection
from receiver.serving.connection_limits import ConnectionLimits
from receiver.serving.connections import Connections
from receiver.serving.server import Server, ServerStop
from receiver.stop_bound import StopBound

_GRACE_SECONDS = 2.0
_TICK_SECONDS = 0.002
_LOOP_TURNS = 8
"""Iterations of the event loop: more than it needs to set up a connection that it has accepted."""


class _Server(Server):
    """Stops as soon as it can instead of at uvicorn's ticks of 0.1 s, since every test waits for it."""

    def __init__(self, config: uvicorn.Config, app: ASGIApp, limits: ConnectionLimits | None) -> None:
        super().__init__(config, ServerStop(StopBound()), limits=limits)
        self._app = app
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _end_waits(self._app)
        await self._stop_accepting()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - uvicorn has no event
                    await asyncio.sleep(_TICK_SECONDS)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    async def _stop_accepting(self) -> None:
        # asyncio never closes a connection whose server closes after accepting it and before setting it up.
        for server in self.servers:
            for listening in server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(_LOOP_TURNS):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()


def _end_waits(app: ASGIApp) -> None:
    if isinstance(app, Starlette) and hasattr(app.state, "end_waits"):
        app.state.end_waits()


def bound() -> socket.socket:
    """Return a socket bound to a free loopback port; until a server listens on it, connections are refused."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken


def url_of(listening: socket.socket) -> str:
    """Return the URL of a server on this socket."""
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


@asynccontextmanager
async def served(
    app: ASGIApp,
    listening: socket.socket | None = None,
    *,
    http: Any = ServerConnection,
    limits: ConnectionLimits | None = None,
    state: Callable[[Connections], None] = lambda _: None,
    root_path: str = "",
    trusted_proxies: str = "127.0.0.1,unix",
) -> AsyncIterator[str]:
    """Serve an app on the given socket or on a free port; yield its URL, which accepts requests at once.

    `state` gets the server's state before it starts.
    """
    listening = listening or bound()
    # asyncio sets this only on sockets that it creates; without it every response waits 40 ms for an ACK.
    if listening.family != socket.AF_UNIX:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.listen()
    config = uvicorn.Config(
        app, http=http, log_level="warning", ws="none", root_path=root_path, forwarded_allow_ips=trusted_proxies
    )
    server = _Server(config, app, limits or ConnectionLimits(trusted_proxies=trusted_proxies))
    state(server.connections)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    started = asyncio.create_task(server.ready.wait())
    await asyncio.wait({started, serving}, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        yield url_of(listening)
    finally:
        server.stop.set()
        await serving
