"""The three kinds of process of the service: one that serves alone, a worker, and the supervisor of several workers.

Imports decide how fast a process starts, so each function here imports what it needs: the supervisor never imports the
application, and a worker watches its supervisor before it imports the application and its settings.
"""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from receiver.settings import Settings

_LINGER_SECONDS = 1.0
"""When the service stops, a request that was already sent on an open connection has this long to arrive."""
_STOP_SECONDS = 15
"""How long a stop waits until all requests are answered."""
_GARBAGE_THRESHOLDS = (10_000, 10, 10)
"""Of Python's garbage collector. With its defaults, meant for small programs, a busy service would always collect."""
_SWITCH_SECONDS = 0.0005
"""How long another thread may compute while the event loop waits for its turn. Python's default, 5 ms, is longer than
most requests take."""


def serve(
    settings: "Settings",
    keys: list[str],
    listening: socket.socket,
    on_ready: Callable[[], None] = lambda: None,
    *,
    metrics: socket.socket | None = None,
) -> int:
    """Serve on a listening socket until a signal stops the process; return the exit status.

    `keys` are the master keys, oldest first; `on_ready` is called when the first request can be answered. `metrics` is
    the listening socket for metrics and health, if they have one of their own.
    """
    import uvicorn

    from receiver.app import create_app
    from receiver.serving.connection_limits import ConnectionLimits, raise_file_limit
    from receiver.serving.server import Server, server_config

    raise_file_limit()
    app = create_app(settings, keys)
    config = server_config(
        app,
        loop="uvloop",
        lifespan="on",
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        root_path=settings.root_path,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )

    stack = contextlib.ExitStack()

    def started() -> None:
        if metrics is not None:
            from receiver.serving.metrics_listener import fault_of_loop

            fault = fault_of_loop(asyncio.get_running_loop(), app.state.readiness.fault)
            stack.enter_context(_metrics_served(metrics, fault, settings.metrics_secret))
        start_garbage_collection()
        sys.setswitchinterval(_SWITCH_SECONDS)
        on_ready()

    server = Server(
        config,
        end_waits=lambda: app.state.end_waits(),
        limits=ConnectionLimits.of(settings),
        linger_seconds=_LINGER_SECONDS,
        on_ready=started,
    )
    # uvicorn handles signals while it runs, and raises those it received again for the earlier handlers when it ends.
    # With these handlers a signal that arrives before it runs is not lost, and one that it obeyed does not kill the
    # process afterwards.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, server.handle_exit)
    with stack:
        server.run(sockets=[listening])
    return 0 if server.started else uvicorn.config.STARTUP_FAILURE


def serve_as_worker(listening: socket.socket, control_socket: socket.socket) -> int:
    """Serve as one of several workers, after the supervisor's own preparation; return the exit status."""
    from receiver.serving.worker import report_ready, stop_with_supervisor

    stop_with_supervisor(control_socket)
    from receiver.serving.master_keys import master_keys
    from receiver.settings import load_settings
    from receiver.storage.schema import check_schema
    from receiver.telemetry.log import configure_logging

    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    # Checked in each worker too: after an upgrade, SIGHUP alone could start a worker of the new version on an old
    # schema.
    asyncio.run(check_schema(settings))
    return serve(settings, master_keys(settings), listening, on_ready=lambda: report_ready(control_socket))


def supervise(
    workers: int, listening: socket.socket, *, metrics: socket.socket | None = None, token: str | None = None
) -> int:
    """Keep `workers` processes serving on one socket until a signal stops them; return the exit status.

    `metrics` is the listening socket for the metrics of all of them, if there is one, and `token` what those require.
    """
    from receiver.errors import StartError
    from receiver.serving.supervisor import WorkerSupervisor

    # -P: the folder in which the service is started could contain a package named `models` too.
    command = [sys.executable, "-P", "-m", "receiver.cli", "serve"]
    try:
        folder = tempfile.TemporaryDirectory(prefix="ringback-")
    except OSError as error:
        raise StartError(
            f"cannot create the temporary folder in which workers share their metrics ({error}); "
            "set TMPDIR to a folder that can be written to"
        ) from None
    with folder as counters, contextlib.ExitStack() as stack:
        if metrics is not None:
            from receiver.serving.metrics_listener import fault_of_workers

            stack.enter_context(_metrics_served(metrics, fault_of_workers(listening), token, Path(counters)))
        start_garbage_collection()
        return asyncio.run(WorkerSupervisor(command, listening, workers, Path(counters)).run())


@contextlib.contextmanager
def _metrics_served(
    metrics: socket.socket,
    fault: Callable[[], Awaitable[str | None]],
    token: str | None,
    counters: Path | None = None,
) -> Iterator[None]:
    """Serve metrics and health on a socket of their own until the context ends; `counters` is the workers' folder."""
    from receiver.api.health import Health
    from receiver.serving.metrics_listener import MetricsServer
    from receiver.telemetry.exposition import exposition

    server = MetricsServer(Health(fault, lambda: exposition(counters), token), metrics)
    server.start()
    try:
        yield
    finally:
        server.stop()


def start_garbage_collection() -> None:
    """Collect garbage from now on, except among the objects that exist already: they live as long as the process."""
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    gc.enable()
