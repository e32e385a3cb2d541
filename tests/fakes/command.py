"""The command line as a user runs it: as a process, with the settings for a world and no others."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.fakes.world import API_KEY, World

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("RINGBACK_")}


class Ringback:
    """Runs commands against a world."""

    def __init__(self, world: World) -> None:
        root = str(Path(__file__).resolve().parents[2])
        self._environment = {**CLEAN, "PYTHONPATH": root, "RINGBACK_URL": world.base, "RINGBACK_API_KEY": API_KEY}
        self._folder = world.folder

    async def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Run a command to its end; return its exit status, its stdout and its stderr."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "receiver.cli",
            *arguments,
            cwd=self._folder,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def data(self, *arguments: str, status: int = 0, stdin: str = "") -> Any:
        """Run a command with `--json`; return the JSON that it printed. There must be no other output on stdout."""
        returned, out, err = await self.run(*arguments, "--json", stdin=stdin)
        assert returned == status, err
        return json.loads(out)
