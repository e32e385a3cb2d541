"""A small stand-in for the service under `receiver.serving.workers`, as processes: `… keep N GRACE_SECONDS`.

A file `broken` in its folder keeps a worker from starting.
"""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from receiver import telemetry
from receiver.serving import workers

BROKEN_STATUS = 3


def keep(number: int) -> None:
    """Keep so many workers; print where they listen."""
    counters = Path("counters")
    counters.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        command = [sys.executable, "-m", "tests.fakes.standin"]
        sys.exit(asyncio.run(workers.Workers(command, listening, number, counters).run()))


def work(listening: socket.socket, line: socket.socket) -> None:
    """Serve. What does not end by itself, `/hang`, is waited for longer than any test does."""
    workers.stop_with_supervisor(line)
    if Path("broken").exists():
        sys.exit(BROKEN_STATUS)
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    # All that the server needs of it; to import it would be to import the whole house, which takes a second.
    sys.modules["receiver.api.event_stream"] = cast(Any, SimpleNamespace(ABORT=""))
    from receiver.serving.server import Server, ServerConnection

    stopping = asyncio.Event()

    async def pid(_request: Request) -> Response:
        telemetry.inbound_refused.labels("standin").inc()
        return JSONResponse(os.getpid())

    async def wait(_request: Request) -> Response:
        telemetry.streams_open.inc()
        await stopping.wait()
        return JSONResponse(os.getpid())

    async def hang(_request: Request) -> Response:
        telemetry.streams_open.inc()
        await asyncio.Event().wait()
        return Response()

    async def metrics(_request: Request) -> Response:
        return Response(telemetry.exposition())

    app = Starlette(routes=[Route(f"/{each.__name__}", each) for each in (pid, wait, hang, metrics)])
    config = uvicorn.Config(app, http=ServerConnection, log_level="critical", ws="none", timeout_graceful_shutdown=60)
    server = Server(config, stopping.set, linger=1.0, ready=lambda: workers.report_ready(line))
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, server.handle_exit)
    server.run(sockets=[listening])


if __name__ == "__main__":
    telemetry.configure_logging("json")
    if sys.argv[1] == "keep":
        workers.GRACE_SECONDS = float(sys.argv[3])
        keep(int(sys.argv[2]))
    else:
        work(socket.socket(fileno=int(sys.argv[2])), socket.socket(fileno=int(sys.argv[4])))
