"""`ringback serve`: runs the service."""

import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.console import echo
from receiver.cli.failure import Failure, message_and_status
from receiver.errors import RingbackError
from receiver.serving.libraries import import_libraries

if TYPE_CHECKING:
    from receiver.cli.listening import PassedSockets, ServiceAddress
    from receiver.settings import Settings


def serve(
    host: Annotated[
        str | None,
        typer.Option(help="The address to listen on, 127.0.0.1 by default; :: is every one of IPv6 and IPv4."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port to listen on, 8080 by default; 0 chooses a free one.")
    ] = None,
    uds: Annotated[Path | None, typer.Option(metavar="PATH", help="Listen at a Unix socket instead.")] = None,
    fd: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Listen on the socket passed as this file descriptor instead."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that serve, 1 by default; more need PostgreSQL.")
    ] = None,
    control_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    metrics_apart: Annotated[bool, typer.Option("--metrics-apart", hidden=True)] = False,
) -> None:
    """Run the service: receive webhooks, track tasks, notify subscribers.

    On SQLite, the first start creates the database, its master key (beside it, mode 0600) and, unless
    RINGBACK_API_KEY is set, an admin key. Until it was used, each start prints it on a terminal; elsewhere it is in a
    file of mode 0600 beside the database, whose path is logged.

    It listens where the options say, else on a socket that systemd passes, else where RINGBACK_HOST, RINGBACK_PORT or
    RINGBACK_UDS say.

    SIGTERM and Ctrl-C stop it after the requests in progress are finished, in RINGBACK_STOP_SECONDS at most. With
    several workers, one that ends unexpectedly is restarted, and SIGHUP replaces all of them one after the other: each
    stops when its successor is ready, and no request is refused. A process that serves alone ignores SIGHUP.
    """
    import_libraries()
    with _failures_in_form_of_log():
        if fd is not None and control_fd is not None:  # started by the supervisor
            from receiver.serving.process import serve_as_worker

            listening, control_socket = socket.socket(fileno=fd), socket.socket(fileno=control_fd)
            status = serve_as_worker(listening, control_socket, metrics_apart=metrics_apart)
        else:
            from receiver.cli.listening import ServiceAddress

            status = _serve(ServiceAddress(host, port, uds, fd), workers)
    if status:
        raise typer.Exit(status)


@contextmanager
def _failures_in_form_of_log() -> Iterator[None]:
    """Where the log is JSON, log what stops the start instead of printing it: all output of a service has one form."""
    try:
        yield
    except (Failure, RingbackError) as failure:
        from receiver.settings import given_log_format
        from receiver.telemetry.log import configure_logging, get_logger

        if given_log_format() != "json":
            raise
        message, status = message_and_status(failure)
        configure_logging("json")
        get_logger("cli.serve").error("service not started", error=message)
        raise typer.Exit(status) from None


def _serve(address: "ServiceAddress", wanted_workers: int | None) -> int:
    from receiver.cli.listening import PassedSockets
    from receiver.serving import process
    from receiver.serving.first_key import hand_over
    from receiver.serving.service_log import ServiceLog
    from receiver.serving.sockets import shown
    from receiver.serving.start import prepared
    from receiver.settings import load_settings
    from receiver.telemetry.log import configure_logging, log_all_output

    passed = PassedSockets.take()
    address.check(passed)
    settings = load_settings()
    workers = wanted_workers or settings.workers
    configure_logging(settings.log_format, settings.log_level)
    if settings.log_format == "json":
        log_all_output()
    with prepared(settings, workers) as installation:
        if installation.unused_admin_key is not None:
            hand_over(settings, installation.unused_admin_key, lambda text: echo(text, lines=True))
        with address.listening(settings, passed) as listening, _listening_for_metrics(settings, passed) as metrics:
            _announce(settings, shown(listening))
            addresses = [shown(each) for each in (listening, metrics) if each is not None]
            service_log = ServiceLog(settings, installation, addresses, workers)
            if workers == 1:
                is_own = address.fd is None and passed.service is None
                keys = installation.master_keys
                return process.serve(settings, keys, listening, metrics=metrics, is_own=is_own, service_log=service_log)
            return process.supervise(settings, workers, listening, metrics=metrics, service_log=service_log)


def _announce(settings: "Settings", url: str) -> None:
    """Say where the service listens, before it answers there: on stdout for people, in the log for programs."""
    if settings.log_format == "json":
        from receiver.telemetry.log import get_logger

        get_logger("cli.serve").info("listening", url=url)
    else:
        echo(f"Ringback on {url}, {_database(settings)}, {_updates(settings)}")


def _listening_for_metrics(
    settings: "Settings", passed: "PassedSockets"
) -> AbstractContextManager[socket.socket | None]:
    """Listen where metrics and health have a listener of their own; None if they have none. Raises `StartError`."""
    if passed.metrics is not None:
        from receiver.serving.sockets import passed_socket

        return passed_socket(passed.metrics)
    if settings.metrics_address is None:
        return nullcontext()
    from receiver.serving.metrics_listener import metrics_listening

    return metrics_listening(settings.metrics_address)


def _database(settings: "Settings") -> str:
    return f"database: {settings.sqlite_path}" if settings.is_sqlite else "database: PostgreSQL"


def _updates(settings: "Settings") -> str:
    if settings.public_url is None:
        return "no RINGBACK_PUBLIC_URL: tasks are tracked by polling alone"
    return f"providers send webhooks to {settings.public_url}/hooks/..."
