"""A small stand-in for the service under `receiver.serving.supervisor`, as processes: `... supervise N GRACE_SECONDS`.

The process that this starts supervises N workers, which run this file too. A file `broken` in its folder makes workers
exit at their start.
"""

import asyncio
import os
import socket
import sys
from pathlib import Path

from receiver.serving.supervisor import WorkerSupervisor
from receiver.serving.worker import SupervisorWatch, report_answering
from receiver.stop_bound import StopBound
from receiver.telemetry.exposition import exposition
from receiver.telemetry.log import configure_logging
from receiver.telemetry.metrics import inbound_refused, streams_open

BROKEN_STATUS = 3


def supervise(workers: int, grace_seconds: float) -> None:
    """Supervise workers; print the URL at which they listen."""
    counters = Path("counters")
    counters.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        command = [sys.executable, "-m", "tests.fakes.standin"]
        supervisor = WorkerSupervisor(command, listening, workers, counters, StopBound(grace_seconds))
        sys.exit(asyncio.run(supervisor.run()))


def work(listening: socket.socket, control_socket: socket.socket) -> None:
    """Serve as a worker. A request for `/hang` is never answered; one for `/wait` is when the worker stops."""
    SupervisorWatch(control_socket).start()
    if Path("broken").exists():
        sys.exit(BROKEN_STATUS)
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from receiver.serving.connection import ServerConnection
    from receiver.serving.server import Server, ServerStop

    stopping = asyncio.Event()

    async def pid(_request: Request) -> Response:
        inbound_refused.labels("standin").inc()
        return JSONResponse(os.getpid())

    async def wait(_request: Request) -> Response:
        streams_open.inc()
        await stopping.wait()
        return JSONResponse(os.getpid())

    async def hang(_request: Request) -> Response:
        streams_open.inc()
        await asyncio.Event().wait()
        return Response()

    async def metrics(_request: Request) -> Response:
        return Response(exposition())

    app = Starlette(routes=[Route(f"/{each.__name__}", each) for each in (pid, wait, hang, metrics)])
    config = uvicorn.Config(app, http=ServerConnection, log_level="critical", ws="none")
    stop = ServerStop(StopBound(100), end_waits=stopping.set, is_own=False, is_worker=True)
    server = Server(config, stop, on_ready=lambda: report_answering(control_socket))
    server.handle_signals()
    server.run(sockets=[listening])


if __name__ == "__main__":
    configure_logging("json")
    if sys.argv[1] == "supervise":
        supervise(int(sys.argv[2]), float(sys.argv[3]))
    else:
        work(socket.socket(fileno=int(sys.argv[2])), socket.socket(fileno=int(sys.argv[4])))
