"""Runs PostgreSQL's own programs (`pg_dump`, `pg_restore`) against the server that the URL names.

What the URL says goes into their environment, which only the same user can read: a command line shows to everybody. So
each parameter has the name that libpq gives it ("Environment Variables" in PostgreSQL's documentation).
"""

import asyncio
import re
import shutil
from asyncio.subprocess import PIPE
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from receiver.environment import for_programs
from receiver.errors import StartError
from receiver.storage.postgresql.location import read_location

_VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "database": "PGDATABASE",
    "passfile": "PGPASSFILE",
    "service": "PGSERVICE",
    "krbsrvname": "PGKRBSRVNAME",
    "gsslib": "PGGSSLIB",
    "sslmode": "PGSSLMODE",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcrl": "PGSSLCRL",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
}
_MAJOR = re.compile(r"\) (\d+)")


def connection_variables(dsn: str) -> dict[str, str]:
    """Return the variables with which libpq connects as the URL says. Raises `StartError` if they cannot say it."""
    location = read_location(dsn)
    parts = urlsplit(location.dsn)
    found = {"PGAPPNAME": "ringback-backup", "PGCONNECT_TIMEOUT": str(round(location.connect_seconds or 10))}
    found |= _from_authority(parts)
    if database := unquote(parts.path.removeprefix("/")):
        found["PGDATABASE"] = database
    for name, value in parse_qsl(parts.query):
        if name not in _VARIABLES:
            raise StartError(
                f"RINGBACK_DATABASE_URL has {name}, which cannot be passed on safely; run pg_dump yourself"
            )
        found[_VARIABLES[name]] = value
    if location.tls is not None:
        found |= {"PGSSLROOTCERT": "system", "PGSSLMODE": "verify-full"}
    return found


def database_name(dsn: str) -> str:
    """Return the name of the database, for the name of a file."""
    variables = connection_variables(dsn)
    name = variables.get("PGDATABASE") or variables.get("PGUSER") or "postgresql"
    return re.sub(r"[^\w.-]", "_", name)


async def run(program: str, arguments: Sequence[str], folder: Path | None, variables: Mapping[str, str]) -> str:
    """Run a program to its end; return what it printed. Raises `StartError` with its own words if it failed."""
    path = find(program, folder)
    process = await asyncio.create_subprocess_exec(
        path, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=PIPE, env=for_programs(variables)
    )
    try:
        out, err = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        raise
    if process.returncode:
        raise StartError(f"{program} failed: {_first_error(err.decode(errors='replace')) or process.returncode}")
    return out.decode(errors="replace")


def find(program: str, folder: Path | None) -> str:
    """Return the path of a program. Raises `StartError` if it is not installed."""
    found = shutil.which(program) if folder is None else shutil.which(program, path=str(folder))
    if found is None:
        where = "" if folder is None else f" in {folder}"
        raise StartError(
            f"{program} is not installed{where}; install PostgreSQL's client programs, not older than the server, "
            "or name their folder with --programs"
        )
    return found


async def major_version(program: str, folder: Path | None) -> int:
    """Return the major version of a program."""
    said = await run(program, ["--version"], folder, {})
    found = _MAJOR.search(said)
    if found is None:
        raise StartError(f"{program} is not PostgreSQL's: it calls itself {said.strip()[:80]!r}")
    return int(found[1])


def _from_authority(parts: SplitResult) -> dict[str, str]:
    """Return what the part between the slashes says: user, password, and one or several hosts and ports."""
    user, _, hosts = parts.netloc.rpartition("@")
    name, has_password, password = user.partition(":")
    found = {"PGUSER": unquote(name)} if name else {}
    if has_password:
        found["PGPASSWORD"] = unquote(password)
    pairs = [re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d*))?", each) for each in hosts.split(",")]
    if any(pair is None for pair in pairs):
        raise StartError("RINGBACK_DATABASE_URL has a host that cannot be read; write HOST:PORT")
    if hosts:
        found["PGHOST"] = ",".join(unquote(pair[1]).strip("[]") for pair in pairs if pair)
        ports = [pair[2] or "" for pair in pairs if pair]
        found |= {"PGPORT": ",".join(ports)} if any(ports) else {}
    return found


def _first_error(text: str) -> str:
    """Return the first line of a program's error: the others say where it happened."""
    lines = [line for line in text.splitlines() if "error" in line.lower()] or text.splitlines()
    return lines[0][:500] if lines else ""
