"""Backups of a PostgreSQL database: made with `pg_dump` in its custom format, restored with `pg_restore`.

`pg_dump` reads one snapshot and holds no writer up. It locks the tables against changes of their form only, and waits
for such a lock with a bound: a migration that runs must not make others wait behind it.
"""

from pathlib import Path

import orjson
from sqlalchemy import text

from receiver.errors import StartError
from receiver.storage.compatibility import REQUIRED_TABLES, VERSION_TABLE, PresentSchema
from receiver.storage.installation import SCHEMA
from receiver.storage.postgresql.connecting import connected
from receiver.storage.postgresql.own_sessions import LIVE_WRITERS
from receiver.storage.postgresql.partitions import DIVIDED
from receiver.storage.postgresql.programs import connection_variables, major_version, run
from receiver.storage.tables import installation_facts

_LOCK_WAIT = "10s"
_COUNT_TABLES = (
    "SELECT count(*), count(*) FILTER (WHERE relkind = 'p') "
    "FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
    "WHERE relkind IN ('r', 'p') AND nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_toast'"
)


async def dump(dsn: str, target: Path, programs: Path | None) -> None:
    """Write a backup to a file. Raises `StartError`."""
    async with connected(dsn) as connection:
        server = int((await connection.execute(text("SHOW server_version_num"))).scalar_one()) // 10_000
    if (own := await major_version("pg_dump", programs)) < server:
        raise StartError(
            f"pg_dump has version {own}, and the server {server}, which it cannot read; install the client programs of "
            f"version {server}, and name their folder with --programs if another pg_dump is found first"
        )
    options = ["--format=custom", "--no-owner", "--no-privileges", "--no-password", f"--lock-wait-timeout={_LOCK_WAIT}"]
    await run("pg_dump", [*options, f"--file={target}"], programs, connection_variables(dsn))


async def check_dump(file: Path, programs: Path | None) -> PresentSchema:
    """Return the schema in a backup. Raises `StartError` if it cannot be read, or is none of a database of Ringback."""
    path = str(file)
    listed = await run("pg_restore", ["--list", path], programs, {})
    tables = {line.split()[6] for line in listed.splitlines() if " TABLE DATA " in line and len(line.split()) > 6}
    # The rows of a partitioned table are in its partitions, one of which is the default one.
    tables |= {each.table for each in DIVIDED if each.default in tables}
    if missing := [name for name in REQUIRED_TABLES if name not in tables]:
        raise StartError(f"{file} is not a backup of Ringback's database: it has no table {missing[0]}")
    revisions = await _rows(path, VERSION_TABLE, programs)
    revision = revisions[0] if revisions else None
    facts = await _rows(path, installation_facts.name, programs) if installation_facts.name in tables else []
    said = next((orjson.loads(line.split("\t")[1]) for line in facts if line.startswith(f"{SCHEMA}\t")), None)
    return PresentSchema.of(revision, said)


async def restore_dump(dsn: str, file: Path, programs: Path | None, *, replaces: bool) -> None:
    """Restore a backup into a database, all of it or nothing; `replaces` the tables that are there.

    Raises `StartError`.
    """
    await _check_target(dsn, replaces=replaces)
    variables = connection_variables(dsn)
    options = ["--no-owner", "--no-privileges", "--no-password", "--single-transaction", "--exit-on-error"]
    if replaces:
        options += ["--clean", "--if-exists"]
    database = variables.get("PGDATABASE") or variables.get("PGUSER", "")
    quoted = database.replace("\\", "\\\\").replace("'", "\\'")
    arguments = [*options, f"--dbname=dbname='{quoted}'", str(file)]
    await run("pg_restore", arguments, programs, variables)


async def refuse_if_served(dsn: str) -> None:
    """Raise `StartError` if a process of Ringback serves the database."""
    async with connected(dsn) as connection:
        served_by = (await connection.execute(text(LIVE_WRITERS))).scalar_one()
    if served_by:
        raise StartError(f"{served_by} processes of Ringback serve the database; stop all of them, then do this again")


async def _check_target(dsn: str, *, replaces: bool) -> None:
    await refuse_if_served(dsn)
    async with connected(dsn) as connection:
        tables, partitioned = (await connection.execute(text(_COUNT_TABLES))).one()
    if partitioned and replaces:
        raise StartError(
            "the database has partitioned tables, which pg_restore cannot replace; name an empty one in "
            "RINGBACK_DATABASE_URL (createdb), or run `ringback database partition --undo` first"
        )
    if tables and not replaces:
        raise StartError(
            f"the database has {tables} tables; name an empty one in RINGBACK_DATABASE_URL (createdb), or replace what "
            "is in this one with --force"
        )


async def _rows(path: str, table: str, programs: Path | None) -> list[str]:
    """Return the rows of a small table in a backup, each a line with tabs between its columns."""
    script = await run("pg_restore", ["--data-only", f"--table={table}", "--file=-", path], programs, {})
    lines = script.splitlines()
    start = next((number for number, line in enumerate(lines, 1) if line.startswith("COPY ")), len(lines))
    return lines[start : lines.index("\\.", start)] if start < len(lines) else []
