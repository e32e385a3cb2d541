"""`ringback serve`: the service itself."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from receiver.settings import Settings

_LINGER_SECONDS = 1.0
"""When the service stops, a request that is on its way over an open connection has this long to arrive."""
_GARBAGE_THRESHOLDS = (10_000, 10, 10)
"""Of Python's collector. Its own are for small programs: a busy service would look for garbage all the time."""


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, help="Processes; more than 1 needs PostgreSQL.")] = 1,
    fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    control_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the service: receive webhooks, track tasks, tell subscribers.

    On SQLite the first start makes the database, its master key (beside it, mode 0600) and, without
    RINGBACK_API_KEY, an admin key, which it prints once.

    SIGTERM and Ctrl-C end it when what is under way is finished. With several workers, one that dies is started
    again, and SIGHUP replaces them one after the other: each stops when its successor is ready, and no request is
    refused.
    """
    gc.disable()  # until it has started: what is imported and made for that is no garbage
    if fd is not None and control_fd is not None:
        _work(socket.socket(fileno=fd), socket.socket(fileno=control_fd))
    else:
        _begin(host, port, workers)


def _begin(host: str, port: int, workers: int) -> None:
    from receiver.cli.listening import listen
    from receiver.errors import StartError
    from receiver.runs.actions_file import read_actions
    from receiver.settings import load_settings
    from receiver.telemetry import configure_logging

    settings = load_settings()
    read_actions(settings.actions_file)  # it is read where it is used: here only to refuse it before anything is made
    configure_logging(settings.log_format)
    if workers > 1 and settings.is_sqlite:
        raise StartError("SQLite serves one process: leave --workers at 1, or set RINGBACK_DATABASE_URL to PostgreSQL")
    with _prepared(settings) as keys, listen(host, port) as (listening, url):
        typer.echo(f"Ringback on {url}, {_storage(settings)}, {_reachability(settings)}")
        if workers == 1:
            _serve(settings, keys, listening)
        else:
            _keep(workers, listening)


@contextlib.contextmanager
def _prepared(settings: "Settings") -> Iterator[list[str]]:
    """Do what is done once before anybody serves; give the master keys. A SQLite file is held until the end."""
    from receiver.storage.first_start import hold, master_keys

    with contextlib.closing(hold(settings)) if settings.is_sqlite else contextlib.nullcontext():
        keys = master_keys(settings)
        made = asyncio.run(_first_start(settings))
        if made is not None:
            typer.echo(
                f"Your admin key, shown this once:\n\n  {made}\n\nKeep it, for example: export RINGBACK_API_KEY=…"
            )
        yield keys


async def _first_start(settings: "Settings") -> str | None:
    """See to the schema and the keys; return the admin key if one was made just now. Raises `StartError`."""
    from receiver.storage.database import Database
    from receiver.storage.first_start import ensure_keys
    from receiver.storage.schema import check_schema, migrate

    if settings.is_sqlite:
        await migrate(settings)
    else:
        await check_schema(settings)
    async with await Database.open(settings) as database:
        return await ensure_keys(database, settings)


def _keep(workers: int, listening: socket.socket) -> None:
    from receiver.errors import StartError
    from receiver.serving.workers import Workers

    command = [sys.executable, "-P", "-m", "receiver.cli", "serve"]  # -P: whoever starts it may have a folder `models`
    try:
        folder = tempfile.TemporaryDirectory(prefix="ringback-")
    except OSError as error:
        raise StartError(f"workers share their counters in a temporary folder ({error}): set TMPDIR to one") from None
    _collect_garbage()
    with folder as counters:
        status = asyncio.run(Workers(command, listening, workers, Path(counters)).run())
    raise typer.Exit(status)


def _work(listening: socket.socket, control: socket.socket) -> None:
    """Serve as one of several. What is done once was done by the process that keeps this one."""
    from receiver.serving.workers import end_with, say_ready

    end_with(control)
    from receiver.settings import load_settings
    from receiver.storage.first_start import master_keys
    from receiver.storage.schema import check_schema
    from receiver.telemetry import configure_logging

    settings = load_settings()
    configure_logging(settings.log_format)
    asyncio.run(check_schema(settings))  # once more: after an upgrade, SIGHUP alone must not bring it to serve
    _serve(settings, master_keys(settings), listening, ready=lambda: say_ready(control))


def _serve(
    settings: "Settings", keys: list[str], listening: socket.socket, ready: Callable[[], None] = lambda: None
) -> None:
    import uvicorn

    from receiver.app import create_app
    from receiver.serving.server import Connection, Server, raise_file_limit

    raise_file_limit()
    app = create_app(settings, keys)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        lifespan="on",
        access_log=False,
        log_level="warning",
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        root_path=settings.root_path,
        server_header=False,
        timeout_graceful_shutdown=15,
    )

    def started() -> None:
        _collect_garbage()
        ready()

    server = Server(config, end_waits=lambda: app.state.end_waits(), linger=_LINGER_SECONDS, ready=started)
    # uvicorn takes the signals while it runs, and afterwards raises them again for whoever had them before. A stop
    # that comes before it runs is not lost in this way, and one that was obeyed ends nothing twice.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, server.handle_exit)
    server.run(sockets=[listening])
    if not server.started:
        raise typer.Exit(uvicorn.config.STARTUP_FAILURE)


def _collect_garbage() -> None:
    """Begin to look for garbage, but not among what is there by now: it lives as long as the process."""
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    gc.enable()


def _storage(settings: "Settings") -> str:
    return f"its database is {settings.sqlite_path}" if settings.is_sqlite else "its database is on PostgreSQL"


def _reachability(settings: "Settings") -> str:
    if settings.public_url is None:
        return "no RINGBACK_PUBLIC_URL: tasks are tracked by polling alone"
    return f"providers report to {settings.public_url}/hooks/…"
