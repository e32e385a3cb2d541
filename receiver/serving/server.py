"""uvicorn, extended for long-lived requests: a stop ends streams and long polls, and a connection can be aborted."""

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

_UNREAD_SECONDS = 2.0
"""When the service stops, a client that does not read its response is disconnected after this time."""
_CHECK_SECONDS = 0.05

_DISCARD_UNSENT = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of 0: a close discards what was not sent, and resets the connection."""
_FILES = 65_536


def raise_file_limit() -> None:
    """Raise this process's limit of open files, and so of connections, as far as the hard limit allows.

    The usual soft limit of 1,024 exists for programs that call `select`, which this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # the present limit will do
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class ServerConnection(HttpToolsProtocol):
    """A connection that the application can abort, and that a client which stops reading cannot keep open."""

    def on_message_begin(self) -> None:
        """Offer the application the extension `ABORT`."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.abort}}

    @property
    def idle(self) -> bool:
        """Whether no request is in progress on it."""
        return self.cycle is None or self.cycle.response_complete

    def shutdown(self) -> None:
        """Finish the request in progress; abort after `_UNREAD_SECONDS` if the client does not read the response."""
        super().shutdown()
        self.loop.call_later(_UNREAD_SECONDS, self._abort_if_unread)

    def abort(self) -> None:
        """Reset the connection, and let the kernel discard what the client has not received."""
        connected = self.transport.get_extra_info("socket")
        if connected is not None:
            with contextlib.suppress(OSError):  # it is closed already
                connected.setsockopt(SOL_SOCKET, SO_LINGER, _DISCARD_UNSENT)
        self.transport.abort()

    def _abort_if_unread(self) -> None:
        if self.flow.write_paused:
            self.abort()


class Server(uvicorn.Server):
    """Ends streams and long polls before it waits for connections to close.

    `end_waits` ends them. During a stop, idle connections stay open for `linger_seconds`: a request that the client has
    already sent is answered, and the response says that the connection closes. `on_ready` is called when the server
    has started.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        end_waits: Callable[[], None],
        *,
        linger_seconds: float = 0.0,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._end_waits = end_waits
        self._linger_seconds = linger_seconds
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop, from the end of the start to the beginning of the stop."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal to stop. Waits end at once, not at uvicorn's next check: `/readyz` depends on that."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end_waits)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start, then call `on_ready`."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._on_ready()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop gracefully."""
        self._loop = None
        self._end_waits()
        for server in self.servers:
            server.close()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        for connection in list(self.server_state.connections):
            if isinstance(connection, ServerConnection) and not connection.idle:
                connection.shutdown()
        await self._wait_until_disconnected(self._linger_seconds)
        await super().shutdown(sockets)

    async def _wait_until_disconnected(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Polled, because uvicorn has no event for the end of its last connection.
                while self.server_state.connections and not self.force_exit:  # noqa: ASYNC110
                    await asyncio.sleep(_CHECK_SECONDS)
