"""uvicorn's server, extended: a stop ends streams and long polls, and connections are bounded."""

import asyncio
import contextlib
from collections.abc import Callable
from signal import Signals
from socket import socket
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from receiver.serving.acceptor import Acceptor
from receiver.serving.connection import ServerConnection
from receiver.serving.connection_limits import ConnectionLimits
from receiver.serving.connections import ClientNetwork, Connections

_CHECK_SECONDS = 0.05


def server_config(app: ASGIApp, **more: Any) -> uvicorn.Config:
    """Return the configuration of a `Server`: what all have in common, and uvicorn's settings in `more`."""
    return uvicorn.Config(
        app,
        http=ServerConnection,
        ws="none",
        access_log=False,
        log_config=None,  # `telemetry.log.configure_logging` writes its records
        log_level="warning",
        server_header=False,
        **more,
    )


class Server(uvicorn.Server):
    """Ends streams and long polls before it waits for connections to close. `limits` are the bounds on connections.

    `end_waits` ends them. During a stop, idle connections stay open for `linger_seconds`: a request that the client has
    already sent is answered, and the response says that the connection closes. `on_ready` is called when the server
    has started, and `on_stop` when it begins to stop, with the name of the signal.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        end_waits: Callable[[], None],
        *,
        limits: ConnectionLimits | None = None,
        linger_seconds: float = 0.0,
        on_ready: Callable[[], None] = lambda: None,
        on_stop: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(config)
        self.connections = Connections(limits or ConnectionLimits())
        self.server_state = self.connections
        self._end_waits = end_waits
        self._linger_seconds = linger_seconds
        self._on_ready = on_ready
        self._on_stop = on_stop
        self.stop_reason = "none"
        """The name of the first signal to stop."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop, from the end of the start to the beginning of the stop."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal to stop. Waits end at once, not at uvicorn's next check: `/readyz` depends on that."""
        if not self.should_exit:
            self.stop_reason = Signals(sig).name
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end_waits)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start, then call `on_ready`."""
        await super().startup([])  # without sockets: the acceptors have them
        self._loop = asyncio.get_running_loop()
        acceptors = [
            Acceptor(each, self._protocol, self.connections) for each in sockets or [self.config.bind_socket()]
        ]
        self.servers = cast("list[asyncio.Server]", acceptors)
        for acceptor in acceptors:
            acceptor.start(self.config.backlog)
        self._on_ready()

    def _protocol(self, network: ClientNetwork) -> asyncio.Protocol:
        connection = self.config.http_protocol_class(
            config=self.config,  # type: ignore[call-arg]
            server_state=self.connections,
            app_state=self.lifespan.state,
        )
        if isinstance(connection, ServerConnection):
            connection.network = network
        return connection

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop gracefully."""
        self._on_stop(self.stop_reason)
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
