"""`ringback` commands run as processes against a world, with the settings for a world and no others."""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tests.fakes.fork_server import fork_server
from tests.fakes.world import API_KEY, World

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("RINGBACK_")}
_SECONDS = 60.0


class Ringback:
    """Runs commands against a world."""

    def __init__(self, world: World) -> None:
        self._environment = {**CLEAN, "RINGBACK_URL": world.base, "RINGBACK_API_KEY": API_KEY}
        self._folder = world.folder

    async def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Run a command to its end; return its exit status, its stdout and its stderr."""
        return await run_command(*arguments, folder=self._folder, environment=self._environment, stdin=stdin)

    async def data(self, *arguments: str, status: int = 0, stdin: str = "") -> Any:
        """Run a command with `--json`; return the JSON that it printed. There must be no other output on stdout."""
        returned, out, err = await self.run(*arguments, "--json", stdin=stdin)
        assert returned == status, err
        return json.loads(out)


async def run_command(
    *arguments: str, folder: Path, environment: Mapping[str, str], stdin: str = ""
) -> tuple[int, str, str]:
    """Run a command to its end with these variables alone; return its exit status, its stdout and its stderr.

    Raises `TimeoutError`, after which it does not run any more.
    """
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        streams = (given.fileno(), out.fileno(), err.fileno())
        child = await fork_server().run(*arguments, folder=folder, environment=environment, streams=streams)
        try:
            async with asyncio.timeout(_SECONDS):
                status = await child.wait()
        finally:
            child.send_signal(signal.SIGKILL)
        for printed in (out, err):
            printed.seek(0)
        return status, out.read().decode(), err.read().decode()
