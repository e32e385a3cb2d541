"""`ringback migrate`: brings the database's schema up to date."""

from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.console import Json, echo, print_json
from receiver.cli.failure import Status
from receiver.cli.interrupts import run_async

if TYPE_CHECKING:
    from receiver.settings import Settings


def migrate(
    check: Annotated[
        bool,
        typer.Option("--check", help="Print which migrations would run, and change nothing; exit status 1 if any."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring the database to this version's schema.

    On SQLite, `serve` does this itself; either keeps a copy of the file as it was before. On PostgreSQL, run it once
    before a new version starts; if another process is migrating the database, it waits for that. If another session has
    a table locked, it tries several times, then says which one.
    """
    from receiver.settings import load_settings
    from receiver.telemetry.log import configure_logging

    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    if check:
        _check(settings, as_json)
    else:
        _migrate(settings, as_json)


def _check(settings: "Settings", as_json: bool) -> None:
    from receiver.storage.schema import read_schema
    from receiver.storage.upgrade import pending_revisions

    found = run_async(read_schema(settings))
    pending = pending_revisions(found.revision) if found.is_to_be_migrated() else []
    if as_json:
        print_json({"now": found.revision, "pending": [{"revision": name, "does": does} for name, does in pending]})
    elif not pending:
        echo(f"The schema is at {found.revision}, nothing is to be migrated.")
    else:
        echo(f"The schema is at {found.revision or 'nothing'}; `ringback migrate` would run:")
        for name, does in pending:
            echo(f"  {name}  {does}")
    if pending:
        raise typer.Exit(Status.TASK_FAILED)


def _migrate(settings: "Settings", as_json: bool) -> None:
    from receiver.serving.start import migrate_database

    before, now = run_async(migrate_database(settings))
    if as_json:
        print_json({"before": before, "now": now})
    elif before == now:
        echo(f"The schema is already at {now}.")
    else:
        echo(f"The schema was at {before or 'nothing'} and is now at {now}.")
