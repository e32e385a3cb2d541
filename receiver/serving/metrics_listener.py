"""A listener of its own for metrics and health: `RINGBACK_METRICS_ADDRESS`.

It runs in a thread with an event loop of its own, so that it answers while requests keep the service's loop busy:
`/livez` and `/metrics` at once, `/readyz` with what the service's loop says in time. With several workers the
supervisor has it, because one process alone can listen at an address: its metrics are those of all workers, and it asks
a worker whether it is ready.
"""

import asyncio
import http.client
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from receiver.api.answer_headers import AnswerHeadersMiddleware
from receiver.api.health import STOPPING, Health, livez
from receiver.serving.connection_limits import ConnectionLimits
from receiver.serving.server import Server, ServerStop, server_config
from receiver.serving.sockets import tcp_listening, unix_listening
from receiver.setting_values import reachable_host, read_listen_address
from receiver.stop_bound import StopBound

_ANSWER_SECONDS = 3.0
_STOP_SECONDS = 2.0
_MOST_CONNECTIONS = 64
_SETTING = "RINGBACK_METRICS_ADDRESS"
_BUSY = "the service does not answer in time"

AskFault = Callable[[], Awaitable[str | None]]
"""Says why the service is not ready; None if it is."""


@contextmanager
def metrics_listening(address: str) -> Iterator[socket.socket]:
    """Listen at `address` until the context ends. Raises `StartError`."""
    place = read_listen_address(address)
    with unix_listening(place, _SETTING) if isinstance(place, Path) else tcp_listening(*place, _SETTING) as listening:
        yield listening


class MetricsServer:
    """Serves `health` on a listening socket, in a thread, between `start` and `stop`."""

    def __init__(self, health: Health, listening: socket.socket) -> None:
        app = Starlette(
            routes=[
                Route("/livez", livez),
                Route("/readyz", health.readyz),
                Route("/metrics", health.metrics),
            ],
            middleware=[Middleware(AnswerHeadersMiddleware)],
        )
        config = server_config(app, loop="asyncio", lifespan="off", proxy_headers=False)
        limits = ConnectionLimits(max_connections=_MOST_CONNECTIONS, max_connections_per_address=_MOST_CONNECTIONS)
        stop = ServerStop(StopBound(_STOP_SECONDS), linger_seconds=0, accept_seconds=0)
        self._server = Server(config, stop, limits=limits)
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="ringback-metrics", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)


def fault_of_loop(loop: asyncio.AbstractEventLoop, fault: AskFault) -> AskFault:
    """Return an `AskFault` for another thread, which asks `fault` on `loop` and does not wait longer than it may."""

    async def ask() -> str | None:
        awaited = _awaited(fault)
        try:
            asking = asyncio.run_coroutine_threadsafe(awaited, loop)
        except RuntimeError:  # the loop is closed
            awaited.close()
            return _BUSY
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await asyncio.wrap_future(asking)
        except TimeoutError:
            return _BUSY

    return ask


def fault_of_workers(listening: socket.socket, is_stopping: Callable[[], bool]) -> AskFault:
    """Return an `AskFault` that asks one of the workers on the public listener: the one that accepts the connection."""
    family, address = listening.family, listening.getsockname()

    async def ask() -> str | None:
        return STOPPING if is_stopping() else await asyncio.to_thread(_ask_worker, family, address)

    return ask


async def _awaited(fault: AskFault) -> str | None:
    """Return what `fault` does: the loop wants a coroutine."""
    return await fault()


def _ask_worker(family: int, address: Any) -> str | None:
    connection = http.client.HTTPConnection("localhost", timeout=_ANSWER_SECONDS)
    try:
        with socket.socket(family) as connected:
            connected.settimeout(_ANSWER_SECONDS)
            connected.connect((reachable_host(address[0]), *address[1:]) if isinstance(address, tuple) else address)
            connection.sock = connected
            connection.request("GET", "/readyz", headers={"connection": "close"})
            answer = connection.getresponse()
            return None if answer.status == http.HTTPStatus.OK else "a worker is not ready"
    except (OSError, http.client.HTTPException):
        return _BUSY
    finally:
        connection.close()
