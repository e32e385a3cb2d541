"""`ringback migrate`: brings the database's schema up to date."""

from receiver.cli.console import Json, echo, print_json


def migrate(as_json: Json = False) -> None:
    """Bring the database to this version's schema.

    On SQLite, `serve` does this itself. On PostgreSQL, run it once before a new version starts; if another process is
    migrating the database, it waits for that. If another session has a table locked, it tries several times, then says
    which one.
    """
    from receiver.serving.start import migrate_database
    from receiver.settings import load_settings
    from receiver.telemetry.log import configure_logging

    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    before, now = migrate_database(settings)
    if as_json:
        print_json({"before": before, "now": now})
    elif before == now:
        echo(f"The schema is already at {now}.")
    else:
        echo(f"The schema was at {before or 'nothing'} and is now at {now}.")
