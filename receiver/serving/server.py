"""uvicorn's server, extended: connections are bounded, and a stop loses none and ends in time."""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from socket import socket
from types import FrameType
from typing import Any, cast

import uvicorn
from msgspec import Struct
from starlette.types import ASGIApp

from receiver.serving.acceptor import Acceptor
from receiver.serving.connection import ServerConnection
from receiver.serving.connection_limits import ConnectionLimits
from receiver.serving.connections import ClientNetwork, Connections
from receiver.serving.worker import HAND_OVER
from receiver.stop_bound import REQUESTS, StopBound

_CHECK_SECONDS = 0.05
_TICK_SECONDS = 0.1
_QUIET_SECONDS = 0.2
"""A listening socket is closed when no connection has come for this long."""
_ACCEPT_SECONDS = 2.0
"""For this long at most it is kept open for them."""
_LINGER_SECONDS = 1.0
"""When the service stops, a request that was already sent on an open connection has this long to arrive."""


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


class ServerStop(Struct, frozen=True):
    """How a server stops: within `bound`, and each part as the callbacks say.

    `begin` is called first, then, after the lame duck, `end_waits`, which ends streams and long polls; each may be
    called again. Idle connections stay open for `linger_seconds`: a request that the client has already sent is
    answered, and the response says that the connection closes. `is_own` says that no other process has its listening
    sockets, and `is_worker` that it has a supervisor. `on_stop` is called, after the lame duck, with the name of the
    signal.
    """

    bound: StopBound
    begin: Callable[[], None] = lambda: None
    end_waits: Callable[[], None] = lambda: None
    on_stop: Callable[[str], None] = lambda _: None
    linger_seconds: float = _LINGER_SECONDS
    accept_seconds: float = _ACCEPT_SECONDS
    is_own: bool = True
    is_worker: bool = False


class Server(uvicorn.Server):
    """Serves until a signal stops it. `limits` are the bounds on connections.

    `on_ready` is called when the server has started. SIGTERM begins with the lame duck, which SIGINT, and unless it is
    a worker a second SIGTERM, ends.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        stop: ServerStop,
        *,
        limits: ConnectionLimits | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self.connections = Connections(limits or ConnectionLimits())
        self.server_state = self.connections
        self._stop = stop
        self._on_ready = on_ready
        self._acceptors: list[Acceptor] = []
        self._hands_over = False
        self._start: asyncio.Task[None] | None = None
        self._stop_reason = "none"
        """The name of the first signal to stop."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop, from the end of the start to the beginning of the stop."""

    def handle_signals(self) -> None:
        """Stop at signals from now on, also those that come before it runs.

        uvicorn handles signals while it runs, and raises those it received again for the earlier handlers when it ends.
        With these handlers one that it obeyed does not kill the process afterwards.
        """
        for each in (signal.SIGTERM, signal.SIGINT, HAND_OVER):
            signal.signal(each, self.handle_exit)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal to stop. `/readyz` says so at once, and not at uvicorn's next check."""
        bound = self._stop.bound
        if bound.is_lame:
            # A supervisor and a process manager may both send SIGTERM.
            if sig != signal.SIGTERM or not self._stop.is_worker:
                bound.end_lame_duck()
            return
        if not self.should_exit:
            self._stop_reason = signal.Signals(sig).name
        super().handle_exit(sig, frame)
        self._hands_over = self._hands_over or sig == HAND_OVER
        bound.begin(lame=sig == signal.SIGTERM)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_stop)
        elif self._start is not None and not self._start.done():
            self._start.get_loop().call_soon_threadsafe(self._start.cancel)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start, then call `on_ready`. A signal to stop ends the start."""
        self._start = asyncio.create_task(self.lifespan.startup())
        if self.should_exit:
            self._start.cancel()
        try:
            await self._start
        except asyncio.CancelledError:
            self.should_exit = True
            # uvicorn would log the end of the cancelled start as an error, with a traceback.
            self.lifespan.logger = logging.Logger("stopped at the start", logging.CRITICAL + 1)
            return  # what the start has opened is closed when the loop ends
        if self.lifespan.should_exit:
            sys.exit(uvicorn.config.STARTUP_FAILURE)
        self.started = True
        self._loop = asyncio.get_running_loop()
        self._acceptors = [
            Acceptor(each, self._protocol, self.connections) for each in sockets or [self.config.bind_socket()]
        ]
        self.servers = cast("list[asyncio.Server]", self._acceptors)
        for acceptor in self._acceptors:
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

    async def main_loop(self) -> None:
        """Serve until a signal comes, and while the lame duck lasts."""
        await super().main_loop()
        for number in count():
            if not self._stop.bound.is_lame:
                break
            await self.on_tick(number)  # which sets the time of the header `Date`
            await asyncio.sleep(_TICK_SECONDS)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop gracefully."""
        self._stop.on_stop(self._stop_reason)
        self._loop = None
        self._begin_stop()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        for connection in list(self.server_state.connections):
            if isinstance(connection, ServerConnection) and not connection.idle:
                connection.shutdown()
        lingers_until = time.monotonic() + min(self._stop.linger_seconds, self._stop.bound.seconds_until(REQUESTS) / 2)
        await asyncio.gather(*map(self._finish_accepting, self._acceptors))
        if self._stop.linger_seconds:
            await self._wait_until_disconnected(max(_QUIET_SECONDS, lingers_until - time.monotonic()))
        self.config.timeout_graceful_shutdown = self._stop.bound.seconds_until(REQUESTS)  # type: ignore[assignment]
        await super().shutdown(sockets)

    def _begin_stop(self) -> None:
        self._stop.begin()
        if not self._stop.bound.is_lame:
            self._stop.end_waits()

    async def _finish_accepting(self, acceptor: Acceptor) -> None:
        if self._hands_over or not self._stop.accept_seconds:
            acceptor.close()
            return
        most = min(self._stop.accept_seconds, self._stop.bound.seconds_until(REQUESTS) / 2)
        await acceptor.finish(_QUIET_SECONDS, most, is_own=self._stop.is_own)

    async def _wait_until_disconnected(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Polled, because uvicorn has no event for the end of its last connection.
                while self.server_state.connections and not self.force_exit:  # noqa: ASYNC110
                    await asyncio.sleep(_CHECK_SECONDS)
