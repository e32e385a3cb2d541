"""The service in a separate process, which the demo kills and starts again."""

import asyncio
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import httpx

from receiver.cli.failure import Failure, Status
from receiver.cli.listening import listen

HOST = "127.0.0.1"
_PORTS = range(20000, 30000)
"""Below the ephemeral ports: no outgoing connection takes the service's port while the service is down."""
_READY_SECONDS = 60.0
_PAUSE_SECONDS = 0.05
_LAST_LINES = 5


class ServiceProcess:
    """`ringback serve` with the same port and settings at every start; its output goes to the file `log`."""

    def __init__(self, log: Path, settings: Mapping[str, str]) -> None:
        port = _free_port()
        self.url = f"http://{HOST}:{port}"
        self.ready = asyncio.Event()
        self.kills = 0
        self._command = [sys.executable, "-m", "receiver.cli", "serve", "--host", HOST, "--port", str(port)]
        self._environment = {**_inherited(), **settings, "RINGBACK_PUBLIC_URL": self.url}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start the service and wait until it is ready. Raises `Failure`."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own command; this takes milliseconds
                self._command,
                cwd=self._log.parent,  # the caller's directory may have a file .env
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _READY_SECONDS
        async with httpx.AsyncClient(trust_env=False) as http:
            while not await self._is_ready(http):
                self.check()
                if time.monotonic() > deadline:
                    raise self._failure(f"is not ready after {_READY_SECONDS:g} s")
                await asyncio.sleep(_PAUSE_SECONDS)
        self.ready.set()

    def kill(self) -> None:
        """End the service with SIGKILL, and wait for its end."""
        self.ready.clear()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.kills += 1

    def check(self) -> None:
        """Raise `Failure` if the service ended without being killed."""
        if self._process is not None and self._process.poll() is not None:
            raise self._failure("ended unexpectedly")

    async def _is_ready(self, http: httpx.AsyncClient) -> bool:
        with suppress(httpx.TransportError):
            return (await http.get(f"{self.url}/readyz")).is_success
        return False

    def _failure(self, reason: str) -> Failure:
        lines = self._log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        return Failure(Status.UNREACHABLE, "\n".join([f"`ringback serve` {reason}:", *lines]))


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)  # noqa: S311 - a port, not a key
        with suppress(Failure), listen(HOST, port):
            return port


def _inherited() -> dict[str, str]:
    """Return the environment without the user's Ringback settings and without proxies: all URLs are on loopback."""
    return {name: value for name, value in os.environ.items() if not re.match("RINGBACK_|.*_proxy$", name, re.I)}
