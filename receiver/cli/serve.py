"""`ringback serve`: the service itself."""

import asyncio
import contextlib
import signal
from typing import Annotated

import typer


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, help="Processes; more than 1 needs PostgreSQL.")] = 1,
) -> None:
    """Run the service: receive webhooks, track tasks, tell subscribers.

    On SQLite the first start makes the database, its master key (beside it, mode 0600) and, without
    RINGBACK_API_KEY, an admin key, which it prints once.
    """
    import uvicorn

    from receiver.app import create_app
    from receiver.cli.graceful import Connection, Server, raise_file_limit
    from receiver.errors import StartError
    from receiver.settings import load_settings
    from receiver.storage.database import Database
    from receiver.storage.first_start import ensure_keys, hold, master_keys
    from receiver.storage.schema import migrate
    from receiver.telemetry import configure_logging

    settings = load_settings()
    configure_logging(settings.log_format)
    if workers > 1:
        raise StartError("SQLite serves one process: leave --workers at 1, or set RINGBACK_DATABASE_URL to PostgreSQL")

    async def first_key() -> str | None:
        async with await Database.open(settings) as database:
            return await ensure_keys(database, settings)

    with contextlib.closing(hold(settings)):
        keys = master_keys(settings)
        migrate(settings)
        made = asyncio.run(first_key())
        if made is not None:
            typer.echo(
                f"Your admin key, shown this once:\n\n  {made}\n\nKeep it, for example: export RINGBACK_API_KEY=…"
            )
        typer.echo(f"Ringback on {settings.sqlite_path}, {_reachability(settings.public_url)}")
        # uvicorn stops gracefully at the first signal, and then raises it again for whoever had it before: nobody.
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, lambda *_: None)
        raise_file_limit()
        app = create_app(settings, keys)
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
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
        server = Server(config, end_waits=lambda: app.state.end_waits())
        server.run()
        if not server.started:
            raise typer.Exit(uvicorn.config.STARTUP_FAILURE)


def _reachability(public_url: str | None) -> str:
    if public_url is None:
        return "no RINGBACK_PUBLIC_URL: tasks are tracked by polling alone"
    return f"providers report to {public_url}/hooks/…"
