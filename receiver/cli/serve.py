"""`ringback serve`: runs the service."""

import gc
import socket
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.console import echo

if TYPE_CHECKING:
    from receiver.settings import Settings


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 chooses a free one.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, help="Processes that serve; more than 1 needs PostgreSQL.")] = 1,
    fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    control_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the service: receive webhooks, track tasks, notify subscribers.

    On SQLite, the first start creates the database, its master key (beside it, mode 0600) and, unless
    RINGBACK_API_KEY is set, an admin key. Until it was used, each start prints it on a terminal; elsewhere it is in a
    file of mode 0600 beside the database, whose path is logged.

    SIGTERM and Ctrl-C stop it after the requests in progress are finished. With several workers, one that ends
    unexpectedly is restarted, and SIGHUP replaces all of them one after the other: each stops when its successor is
    ready, and no request is refused.
    """
    gc.disable()  # enabled after the start: nothing that is imported and created until then is garbage
    if fd is not None and control_fd is not None:  # started by the supervisor
        from receiver.serving.process import serve_as_worker

        status = serve_as_worker(socket.socket(fileno=fd), socket.socket(fileno=control_fd))
    else:
        status = _serve(host, port, workers)
    if status:
        raise typer.Exit(status)


def _serve(host: str, port: int, workers: int) -> int:
    from receiver.cli.listening import listen
    from receiver.serving import process
    from receiver.serving.first_key import hand_over
    from receiver.serving.start import prepared
    from receiver.settings import load_settings
    from receiver.telemetry.log import configure_logging

    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    with prepared(settings, workers) as keys:
        if keys.unused_admin_key is not None:
            hand_over(settings, keys.unused_admin_key, lambda text: echo(text, lines=True))
        with listen(host, port) as (listening, url), _listening_for_metrics(settings) as metrics:
            echo(f"Ringback on {url}, {_database(settings)}, {_updates(settings)}")
            if workers == 1:
                return process.serve(settings, keys.master_keys, listening, metrics=metrics)
            return process.supervise(settings, workers, listening, metrics=metrics)


def _listening_for_metrics(settings: "Settings") -> AbstractContextManager[socket.socket | None]:
    """Listen where metrics and health have a listener of their own; None if they have none."""
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
