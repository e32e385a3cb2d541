"""The three kinds of process of the service: one that serves alone, a worker, and the supervisor of several workers.

Imports decide how fast a process starts, so each function here imports what it needs: the supervisor never imports the
application, and a worker watches its supervisor before it imports the application and its settings.
"""

import asyncio
import contextlib
import gc
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from receiver.serving.early_signals import end_if_asked
from receiver.serving.hangup import go_on_at_hangup
from receiver.stop_bound import END, StopBound
from receiver.telemetry.log import get_logger

if TYPE_CHECKING:
    from receiver.serving.service_log import ServiceLog
    from receiver.settings import Settings

log = get_logger("serving.process")

_STATUS = "serving"
_LATE_STATUS = 4
"""The exit status of a process that had not stopped when its time was over."""
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
    metrics_apart: bool = False,
    is_own: bool = True,
    is_worker: bool = False,
    service_log: "ServiceLog | None" = None,
) -> int:
    """Serve on a listening socket until a signal stops the process; return the exit status.

    `keys` are the master keys, oldest first; `on_ready` is called when the first request can be answered. `metrics` is
    the listening socket for metrics and health, if they have one of their own; `metrics_apart` says that another
    process serves them. `is_own` says that no other process has the listening socket; `is_worker` that a supervisor has
    started this one. `service_log` logs the start and the stop.
    """
    import uvicorn

    from receiver.app import create_app
    from receiver.serving.connection_limits import ConnectionLimits, raise_file_limit
    from receiver.serving.notify import Notifier
    from receiver.serving.server import Server, ServerStop, server_config

    raise_file_limit()
    bound = StopBound(settings.stop_seconds, settings.lame_duck_seconds)
    app = create_app(settings, keys, bound, metrics_apart=metrics_apart or metrics is not None)
    config = server_config(
        app,
        loop="uvloop",
        lifespan="on",
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        root_path=settings.root_path,
    )

    stack, notifier = contextlib.ExitStack(), Notifier.take()

    def started() -> None:
        if metrics is not None:
            from receiver.serving.metrics_listener import fault_of_loop

            fault = fault_of_loop(asyncio.get_running_loop(), app.state.readiness.fault)
            stack.enter_context(_metrics_served(metrics, fault, settings.metrics_secret))
        start_garbage_collection()
        sys.setswitchinterval(_SWITCH_SECONDS)
        if not is_worker:
            notifier.ready(_STATUS)
            notifier.watch()
            go_on_at_hangup(server.handle_exit, reloaded)
        on_ready()
        if service_log is not None:
            service_log.started()

    def reloaded() -> None:  # `systemctl reload` waits for both
        notifier.reloading()
        notifier.ready(_STATUS)

    stop = ServerStop(
        bound,
        begin=notifier.stopping,
        end_waits=lambda: app.state.end_waits(),
        is_own=is_own,
        is_worker=is_worker,
        on_stop=service_log.stopping if service_log is not None else lambda _: None,
    )
    server = Server(config, stop, limits=ConnectionLimits.of(settings), on_ready=started)
    server.handle_signals()
    end_if_asked()
    threading.Thread(target=end_in_time, args=(bound,), name="ringback-stop", daemon=True).start()
    with stack:
        server.run(sockets=[listening])
    if service_log is not None and server.started:
        service_log.stopped()
    return 0 if server.started or server.should_exit else uvicorn.config.STARTUP_FAILURE


def end_in_time(bound: StopBound) -> None:
    """End this process when the time of a stop is over, whatever holds it. What was under way is left to leases."""
    bound.wait_begun()
    time.sleep(bound.seconds_until(END))
    log.error(
        "stop not finished in time; process ended",
        seconds=bound.seconds,
        advice="what was under way goes on at the next start; RINGBACK_STOP_SECONDS gives more time",
    )
    sys.stderr.flush()
    os._exit(_LATE_STATUS)


def serve_as_worker(listening: socket.socket, control_socket: socket.socket, *, metrics_apart: bool = False) -> int:
    """Serve as one of several workers, after the supervisor's own preparation; return the exit status.

    `metrics_apart` says that the supervisor serves the metrics.
    """
    from receiver.serving.worker import SupervisorWatch, report_answering

    watch = SupervisorWatch(control_socket)
    watch.start()
    from receiver.serving.master_keys import master_keys
    from receiver.settings import load_settings
    from receiver.storage.schema import check_schema
    from receiver.telemetry.log import configure_logging, log_all_output

    settings = load_settings()
    watch.grace_seconds = settings.stop_seconds
    configure_logging(settings.log_format, settings.log_level)
    if settings.log_format == "json":
        log_all_output()
    # Checked in each worker too: after an upgrade, SIGHUP alone could start a worker of the new version on an old
    # schema.
    asyncio.run(check_schema(settings))

    return serve(
        settings,
        master_keys(settings),
        listening,
        on_ready=lambda: report_answering(control_socket),
        metrics_apart=metrics_apart,
        is_own=False,
        is_worker=True,
    )


def supervise(
    settings: "Settings",
    workers: int,
    listening: socket.socket,
    *,
    service_log: "ServiceLog",
    metrics: socket.socket | None = None,
) -> int:
    """Keep `workers` processes serving on one socket until a signal stops them; return the exit status.

    `metrics` is the listening socket for the metrics of all of them, if there is one. `service_log` logs the start
    and the stop.
    """
    from receiver.errors import StartError
    from receiver.serving.notify import Notifier
    from receiver.serving.supervisor import WorkerSupervisor

    # -P: the folder in which the service is started could contain a package named `models` too.
    command = [sys.executable, "-P", "-m", "receiver.cli", "serve", *([] if metrics is None else ["--metrics-apart"])]
    try:
        folder = tempfile.TemporaryDirectory(prefix="ringback-")
    except OSError as error:
        raise StartError(
            f"cannot create the temporary folder in which workers share their metrics ({error}); "
            "set TMPDIR to a folder that can be written to"
        ) from None
    with folder as counters, contextlib.ExitStack() as stack:
        bound = StopBound(settings.stop_seconds, settings.lame_duck_seconds)
        supervisor = WorkerSupervisor(
            command,
            listening,
            workers,
            Path(counters),
            bound,
            Notifier.take(),
            on_ready=service_log.started,
            on_stop=service_log.stopping,
        )
        if metrics is not None:
            from receiver.serving.metrics_listener import fault_of_workers

            fault = fault_of_workers(listening, lambda: supervisor.is_stopping)
            stack.enter_context(_metrics_served(metrics, fault, settings.metrics_secret, Path(counters)))
        start_garbage_collection()
        end_if_asked()
        status = asyncio.run(supervisor.run())
        service_log.stopped()
        return status


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
