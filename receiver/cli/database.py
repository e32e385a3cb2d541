"""`ringback database`: check, compact, size, partition, after-restore."""

from typing import Annotated

import typer
from msgspec import to_builtins
from msgspec.structs import asdict

from receiver.cli.backup import loaded_settings, print_after_restore
from receiver.cli.console import Json, echo, print_json, print_table, size_text, spinner
from receiver.cli.failure import Status
from receiver.cli.interrupts import run_async

app = typer.Typer(no_args_is_help=True, help="Check, measure and compact the database, on the machine that serves it.")


@app.command(epilog="Exit status: 0 all is well, or to be looked at, 1 something is bad, 3 it cannot be opened.")
def check(as_json: Json = False) -> None:
    """Check that the database is whole, that its server is set as it has to be, and what Ringback relies on.

    The service may run. On SQLite all of the file is read.
    """
    from receiver.storage.maintenance import Severity, check_database

    settings = loaded_settings()
    with spinner("checking", as_json):
        findings = run_async(check_database(settings))
    if as_json:
        print_json({"findings": [asdict(each) for each in findings]})
    else:
        print_table(("checked", "", "found"), [(each.check, each.severity, each.words) for each in findings])
    if any(each.severity == Severity.BAD for each in findings):
        raise typer.Exit(Status.TASK_FAILED)


@app.command()
def compact(as_json: Json = False) -> None:
    """Give the space of purged rows back.

    SQLite: stop the service first; a new file is written, which needs as much room again meanwhile. It never shrinks
    by itself, and new rows use its free pages, so do this only after a large purge.

    PostgreSQL: runs VACUUM (ANALYZE) on each table beside the service. The server's autovacuum does the same by itself;
    either leaves the space to new rows.
    """
    from receiver.storage.maintenance import compact_database

    settings = loaded_settings()
    with spinner("compacting", as_json):
        done = run_async(compact_database(settings))
    if as_json:
        print_json(asdict(done))
    else:
        echo(f"The database had {size_text(done.before)}, and has {size_text(done.after)}.")


@app.command()
def size(as_json: Json = False) -> None:
    """Print how large the database and each of its tables is, indexes included, and about how many rows there are."""
    from receiver.storage.maintenance import size_of_database

    settings = loaded_settings()
    with spinner("measuring", as_json):
        found = run_async(size_of_database(settings))
    if as_json:
        print_json(to_builtins(found))
        return
    by_size = sorted(found.tables, key=lambda each: each.bytes or 0, reverse=True)
    print_table(
        ("table", "rows", "size"),
        [(each.table, each.rows, None if each.bytes is None else size_text(each.bytes)) for each in by_size],
    )
    free = "" if found.free is None else f", of which {size_text(found.free)} are free for new rows"
    echo(f"In all {size_text(found.bytes)}{free}.")


@app.command()
def partition(
    undo: Annotated[
        bool, typer.Option("--undo", help="Make whole tables of the partitions again; nothing may serve the database.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Divide PostgreSQL's largest tables into partitions by age, so that what is purged gives its space to the disk.

    The service may run: no row is copied, and writes wait for parts of a second. Worth it from some ten million events
    on. What an interrupted call has done stays; call it again. `--undo` copies all rows, and needs as much disk again.
    """
    from receiver.storage.maintenance import partition_database, unite_database

    settings = loaded_settings()
    with spinner("uniting" if undo else "partitioning", as_json):
        found = run_async(unite_database(settings) if undo else partition_database(settings))
    if as_json:
        print_json({"tables": [asdict(each) for each in found]})
        return
    for each in found:
        now = f"partitions, the first for rows below {each.first_until}" if each.first_until else "one table"
        echo(f"{each.table}: {now}{'' if each.done else ' (as before)'}")


@app.command("after-restore")
def after_restore(
    force: Annotated[bool, typer.Option("--force", help="Also if the master key does not decrypt all of it.")] = False,
    as_json: Json = False,
) -> None:
    """Prepare a database that was restored by other means than `ringback restore`: Litestream, a copy, PITR.

    Run it once, before anything serves that database. Otherwise tasks may be bought twice, and streams skip events.
    """
    from receiver.serving.master_keys import present_keyring
    from receiver.storage.restoring import prepare_restored

    settings = loaded_settings()
    done = run_async(prepare_restored(settings, present_keyring(settings), is_forced=force))
    if as_json:
        print_json(done.as_json())
    else:
        echo("The database is ready to be served.")
        print_after_restore(done)
