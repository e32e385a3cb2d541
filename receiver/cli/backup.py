"""`ringback backup` and `ringback restore`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.console import Json, echo, print_json, size_text
from receiver.cli.interrupts import run_async
from receiver.cli.options import Programs
from receiver.cli.progress import copy_progress

if TYPE_CHECKING:
    from receiver.settings import Settings
    from receiver.storage.after_restore import AfterRestore


def backup(
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="By default <database>-<time>.backup, beside the SQLite file or here."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it exists, once the new one is whole.")
    ] = False,
    programs: Programs = None,
    as_json: Json = False,
) -> None:
    """Back the database up to one file, while the service runs.

    The file is checked before it gets its name, and is readable by its owner only. The master key is not in it, and a
    restore needs that too: keep it apart from the backups. PostgreSQL is backed up with pg_dump, which must be
    installed, and not older than the server.
    """
    from receiver.clock import wall_now
    from receiver.storage.backup import back_up, default_target

    settings = loaded_settings()
    target = to or default_target(settings, wall_now())
    with copy_progress("copying", as_json) as on_progress:
        made = run_async(back_up(settings, target, overwrite=force, programs=programs, on_progress=on_progress))
    key = _place_of_key(settings)
    if as_json:
        facts = {"file": str(made.file), "bytes": made.bytes, "seconds": made.seconds, "revision": made.revision}
        print_json({**facts, "master_key": key})
    else:
        echo(
            f"{made.file}: {size_text(made.bytes)} in {made.seconds:g} s, schema {made.revision}, checked. "
            f"The master key is not in it ({key}), and nothing can be restored without it: keep a copy elsewhere."
        )


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup made by `ringback backup`.")],
    force: Annotated[
        bool,
        typer.Option("--force", help="Also into a PostgreSQL database that is not empty, or without the right key."),
    ] = False,
    programs: Programs = None,
    as_json: Json = False,
) -> None:
    """Put a backup in the place of the database. Stop the service first.

    The backup is checked, with the master key, and brought to this version's schema. A SQLite database that it replaces
    is kept beside it. What happened since the backup is unknown then: tasks that may have been sent since are searched
    for and never sent again, and the numbers of events go on far above those that were given.
    """
    from receiver.serving.master_keys import present_keyring
    from receiver.storage.restoring import restore as restore_backup

    settings = loaded_settings()
    keyring = present_keyring(settings)
    with copy_progress("copying", as_json) as on_progress:
        restored = run_async(
            restore_backup(settings, keyring, file, is_forced=force, programs=programs, on_progress=on_progress)
        )
    replaced = None if restored.replaced is None else str(restored.replaced)
    if as_json:
        print_json({**restored.done.as_json(), "replaced": replaced})
        return
    kept = "" if replaced is None else f" The database before it is {replaced}."
    echo(f"{file} is restored.{kept}")
    print_after_restore(restored.done)


def print_after_restore(done: "AfterRestore") -> None:
    """Print what was done with a restored database, and what a person has to know of it."""
    if done.newest_event_at is not None:
        echo(f"Its newest event is of {done.newest_event_at.isoformat(timespec='seconds')}; nothing after it is known:")
    echo(f"  {done.searched} tasks may have been sent since: they are searched for at the provider, not sent again")
    echo(f"  {done.polled} tasks under way are polled; one that failed is not tried again by itself")
    echo(f"  {done.runs} runs are under way: their next steps are created, also if they were before the restore")
    echo(f"  events go on at number {done.next_event}; what happened since the backup may be told again, as new events")
    echo("  tasks, webhooks and keys made since are gone, and revoked keys are valid again: revoke them again")
    echo("  Idempotency-Keys used since are unknown: a repeated request creates again")


def loaded_settings() -> "Settings":
    """Return the settings, after they have said how to log."""
    from receiver.settings import load_settings
    from receiver.telemetry.log import configure_logging

    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    return settings


def _place_of_key(settings: "Settings") -> str:
    """Return where the master key is."""
    from receiver.serving.master_keys import key_file

    return "RINGBACK_SECRET_KEY" if settings.secret_key is not None else str(key_file(settings))
