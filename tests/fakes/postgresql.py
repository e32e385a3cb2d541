"""PostgreSQL 18 servers for tests: one for each test process, with its databases, and one that a test may stop."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from tests.fakes.postgresql_programs import Programs, programs, run_options, server_folder

_KEEP = 'cat; "$1" -D "$2/data" -m immediate -w stop; rm -rf "$2"'
"""Waits until its standard input is closed, and so stops and removes the server even when the tests are killed."""
_COMMON = {
    "listen_addresses": "",
    "max_connections": 200,
    "shared_buffers": "32MB",
    "max_wal_size": "4GB",
    "timezone": "UTC",
}
_NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "max_wal_size": "512MB",
    "autovacuum": "off",  # it would look through every test's database again and again
}
"""Much faster. Data survive when processes are killed, and are lost when the machine stops."""

StopMode = Literal["smart", "fast", "immediate"]
"""How `pg_ctl` stops a server; `immediate` stops it without a checkpoint, as a crash does."""


class Server:
    """A PostgreSQL that this process started; its data and its socket are in `folder`."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        self.folder = folder
        self._programs = programs.folder
        keep = ["sh", "-c", _KEEP, "keep", str(programs.folder / "pg_ctl"), str(folder)]
        self._keeper = subprocess.Popen(
            keep,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=programs.held,
            **run_options(folder),
        )

    @classmethod
    def make(cls, settings: Mapping[str, Any], *, in_memory: bool = False) -> "Server":
        """Make a server with these settings, `in_memory` if there is room, and start it."""
        authentication = ("-U", "postgres", "--auth=trust")
        server = cls.empty(in_memory=in_memory)
        try:
            server._run("initdb", *authentication, "--locale=C", "--encoding=UTF8", "--no-sync", "--no-instructions")
            server._configure(settings)
            server._run("pg_ctl", "start", *server._started)
        except BaseException:
            server.remove()
            raise
        return server

    @classmethod
    def empty(cls, *, in_memory: bool = False) -> "Server":
        """Make the folder of a server that has no data yet."""
        usable = programs()
        folder = server_folder(in_memory=in_memory)
        try:
            return cls(folder, usable)
        except BaseException:
            shutil.rmtree(folder)
            raise

    def url(self, database: str = "postgres") -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    async def start(self) -> None:
        """Start it, and return when it accepts connections."""
        await asyncio.to_thread(self._run, "pg_ctl", "start", *self._started)

    async def stop(self, mode: StopMode = "fast") -> None:
        """Stop it and keep its data."""
        await asyncio.to_thread(self._run, "pg_ctl", "stop", "-w", "-m", mode)

    async def restart(self, mode: StopMode = "fast") -> None:
        """Stop it and start it again."""
        await self.stop(mode)
        await self.start()

    def remove(self) -> None:
        """Stop it and remove its data."""
        self._keeper.communicate(timeout=60)
        # PostgreSQL's user cannot do it where only this user may write.
        shutil.rmtree(self.folder, ignore_errors=True)

    def copy(self) -> "Server":
        """Make a read-only standby that replicates this server, and start it."""
        standby = Server.empty()
        try:
            standby._run("pg_basebackup", "-h", str(self.folder), "-U", "postgres", "-c", "fast", "-R", "--no-sync")
            standby._configure({})
            standby._run("pg_ctl", "start", *standby._started)
        except BaseException:
            standby.remove()
            raise
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
            **run_options(self.folder),
        )
        if done.returncode:
            log = self.folder / "log"
            raise RuntimeError(f"{program} failed: {done.stdout}\n{log.read_text() if log.exists() else ''}")


@asynccontextmanager
async def own_server(**settings: Any) -> AsyncIterator[Server]:
    """Run a server for one test, which may stop and start it; what it commits is durable."""
    server = await asyncio.to_thread(Server.make, settings)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.remove)


@asynccontextmanager
async def standby(primary: Server) -> AsyncIterator[Server]:
    """Run a read-only standby that replicates the primary."""
    server = await asyncio.to_thread(primary.copy)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.remove)


def forgetful_server() -> Server:
    """Make a fast server for the databases of a test process; its data are not durable. The caller removes it."""
    return Server.make(_NOT_DURABLE, in_memory=True)
