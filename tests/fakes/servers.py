"""Any ASGI application on a free loopback port, in this loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from receiver.cli.graceful import Connection, Server


class _Server(Server):
    """Stops when it is told to, not at its next tick."""

    def __init__(self, config: uvicorn.Config, app: ASGIApp) -> None:
        super().__init__(config, end_waits=lambda: _end_waits(app))
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.stop.wait()


def _end_waits(app: ASGIApp) -> None:
    if isinstance(app, Starlette) and hasattr(app.state, "end_waits"):
        app.state.end_waits()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@asynccontextmanager
async def served(app: ASGIApp, port: int = 0) -> AsyncIterator[str]:
    """Serve an app; yield its address, which is good at once, for the socket listens already."""
    listening = socket.create_server(("127.0.0.1", port))
    # asyncio does this only for sockets of its own making; without it every answer waits 40 ms for an ACK.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(app, http=Connection, log_level="warning", ws="none", timeout_graceful_shutdown=2)
    server = _Server(config, app)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    started = asyncio.create_task(server.ready.wait())
    await asyncio.wait({started, serving}, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.stop.set()
        await serving
