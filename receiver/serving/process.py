"""A process that serves, alone or as one of several workers, and the process that supervises the workers.

What is imported decides how fast a start is, so each function imports what it needs: the supervisor never loads the
application.
"""

import asyncio
import gc
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from receiver.errors import StartError
from receiver.settings import Settings, load_settings
from receiver.telemetry import configure_logging

_LINGER_SECONDS = 1.0
"""When the service stops, a request that is already sent over an open connection has this long to arrive."""
_STOP_SECONDS = 15
"""How long a stop waits for requests to be answered."""
_GARBAGE_THRESHOLDS = (10_000, 10, 10)
"""Of Python's collector. The defaults are for small programs: a busy service would collect garbage all the time."""


def serve(
    settings: Settings, keys: list[str], listening: socket.socket, ready: Callable[[], None] = lambda: None
) -> int:
    """Serve on a listening socket until a signal stops the process; return the exit status.

    `keys` are the master keys, oldest first; `ready` is called when the first request can be answered.
    """
    import uvicorn

    from receiver.app import create_app
    from receiver.serving.server import Server, ServerConnection, raise_file_limit

    raise_file_limit()
    app = create_app(settings, keys)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=ServerConnection,
        lifespan="on",
        access_log=False,
        log_level="warning",
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        root_path=settings.root_path,
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )

    def started() -> None:
        collect_garbage()
        ready()

    server = Server(config, end_waits=lambda: app.state.end_waits(), linger=_LINGER_SECONDS, ready=started)
    # uvicorn handles the signals while it runs, and afterwards raises them again for the handlers before it. With
    # these, a signal that comes before it runs is not lost, and one that it obeyed ends nothing twice.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, server.handle_exit)
    server.run(sockets=[listening])
    return 0 if server.started else uvicorn.config.STARTUP_FAILURE


def serve_as_worker(listening: socket.socket, control: socket.socket) -> int:
    """Serve as one of several workers; the supervisor has done what is done once. Return the exit status."""
    from receiver.serving.workers import report_ready, stop_with_supervisor

    stop_with_supervisor(control)
    from receiver.serving.master_keys import master_keys
    from receiver.storage.schema import check_schema

    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    # Checked again: after an upgrade, SIGHUP alone must not start a worker on an old schema.
    asyncio.run(check_schema(settings))
    return serve(settings, master_keys(settings), listening, ready=lambda: report_ready(control))


def supervise(workers: int, listening: socket.socket) -> int:
    """Keep `workers` processes serving on one socket until a signal stops them; return the exit status."""
    from receiver.serving.workers import Workers

    # -P: the folder that it is started in may have a package `models` too.
    command = [sys.executable, "-P", "-m", "receiver.cli", "serve"]
    try:
        folder = tempfile.TemporaryDirectory(prefix="ringback-")
    except OSError as error:
        raise StartError(f"workers share their counters in a temporary folder ({error}): set TMPDIR to one") from None
    collect_garbage()
    with folder as counters:
        return asyncio.run(Workers(command, listening, workers, Path(counters)).run())


def collect_garbage() -> None:
    """Collect garbage from now on, but not among the objects that exist now: they live as long as the process."""
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    gc.enable()
