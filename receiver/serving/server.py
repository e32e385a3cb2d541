"""uvicorn, with what streams need of it: an end of all waits when it stops, and a way to cut a connection."""

import asyncio
import contextlib
import resource
import struct
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET, socket
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from receiver.asgi import ABORT

_GRACE_SECONDS = 2.0
"""When the service stops, a client that does not read what was written to it has this long."""
_TICK_SECONDS = 0.05

_NO_LINGERING = struct.pack("ii", 1, 0)
_FILES = 65_536


def raise_file_limit() -> None:
    """Let this process have as many connections as it may: the usual limit of 1,024 is for others' `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # it goes on with what it has
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class ServerConnection(HttpToolsProtocol):
    """A connection that the application may cut, and that a client which does not read cannot keep open."""

    def on_message_begin(self) -> None:
        """Offer the application to cut the connection."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.abort}}

    @property
    def idle(self) -> bool:
        """Whether no request is under way on it."""
        return self.cycle is None or self.cycle.response_complete

    def shutdown(self) -> None:
        """Finish what is under way; cut it after a while if nobody takes it."""
        super().shutdown()
        self.loop.call_later(_GRACE_SECONDS, self._cut_if_stuck)

    def abort(self) -> None:
        """Cut the connection, and have the kernel drop what was not read of it."""
        connected = self.transport.get_extra_info("socket")
        if connected is not None:
            with contextlib.suppress(OSError):  # it is gone already
                connected.setsockopt(SOL_SOCKET, SO_LINGER, _NO_LINGERING)
        self.transport.abort()

    def _cut_if_stuck(self) -> None:
        if self.flow.write_paused:
            self.abort()


class Server(uvicorn.Server):
    """Ends streams and long polls before it waits for connections to close.

    When it is told to stop, idle connections stay open for `linger` seconds: a request that is on its way already is
    answered, and the answer says that the connection closes. `ready` is called when the server has started.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        end_waits: Callable[[], None],
        *,
        linger: float = 0.0,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._end_waits = end_waits
        self._linger = linger
        self._ready = ready
        self._serving: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal. Waits end at once and not at the next tick, for `/readyz` goes by that."""
        super().handle_exit(sig, frame)
        if self._serving is not None:
            self._serving.call_soon_threadsafe(self._end_waits)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._serving = asyncio.get_running_loop()
        self._ready()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop gracefully."""
        self._serving = None
        self._end_waits()
        for server in self.servers:
            server.close()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        for connection in list(self.server_state.connections):
            if isinstance(connection, ServerConnection) and not connection.idle:
                connection.shutdown()
        await self._while_connected(self._linger)
        await super().shutdown(sockets)

    async def _while_connected(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.server_state.connections and not self.force_exit:  # noqa: ASYNC110 - uvicorn tells nobody
                    await asyncio.sleep(_TICK_SECONDS)
