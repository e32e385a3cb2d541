"""`ringback migrate`: the database's schema."""

import typer

from receiver.cli.console import Json, print_json


def migrate(as_json: Json = False) -> None:
    """Bring the database to this version's schema.

    On SQLite `serve` does it by itself. On PostgreSQL run it once before a new version starts: it waits for others
    that do the same.
    """
    import asyncio

    from receiver.settings import load_settings
    from receiver.storage.schema import migrate as migrate_schema
    from receiver.telemetry import configure_logging

    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    before, now = asyncio.run(migrate_schema(settings))
    if as_json:
        print_json({"before": before, "now": now})
    elif before == now:
        typer.echo(f"the schema is at {now} already")
    else:
        typer.echo(f"the schema was at {before or 'nothing'}, and is at {now} now")
