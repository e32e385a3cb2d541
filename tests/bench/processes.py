"""The bench's servers, each in its own process."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import orjson

from receiver.organization_limits import LIMIT_NAMES
from tests.bench.databases import Store
from tests.bench.prepared_requests import read_response, request

_START_SECONDS = 30.0
_CHECK_SECONDS = 0.005
_NO_LIMITS = {
    "RINGBACK_ALLOW_PRIVATE_TARGETS": "true",
    "RINGBACK_KEY_RATE": "1000000/s",
    "RINGBACK_ORGANIZATION_LIMITS": ",".join(f"{name}=unlimited" for name in LIMIT_NAMES),
}
"""Settings for a load from one machine with one API key, in one organization."""
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Service:
    """A server process, its port on loopback and its log."""

    port: int
    process: asyncio.subprocess.Process
    log: Path

    def resident_mib(self) -> float:
        """Return the resident memory of the process, in MiB. Linux only."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Make one client call; return the status and the parsed JSON body."""
        status, content = await self.exchange(method, path, body)
        return status, orjson.loads(content)

    async def exchange(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Make one client call on its own connection; return the status and the body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request(method, path, body))
            return await read_response(reader)
        finally:
            writer.close()

    async def subscribe(self, url: str, **fields: Any) -> str:
        """Register a webhook for `task.completed`, or what `fields` say instead; return its id."""
        webhook = {"endpoint_url": url, "event_types": ["task.completed"], **fields}
        status, body = await self.call("POST", "/api/v1/webhooks", webhook)
        if status != 200:
            raise SystemExit(f"registering a webhook failed with status {status}: {body}")
        return str(body["data"]["id"])


@asynccontextmanager
async def ringback(
    store: Store, settings: Mapping[str, str] = MappingProxyType({}), *, port: int | None = None
) -> AsyncIterator[Service]:
    """Run `ringback serve` on the store; the names in `settings` are in lower case and without the prefix."""
    given = {f"RINGBACK_{name.upper()}": value for name, value in settings.items()}
    command = ["receiver.cli", "serve", "--port", str(port or free_port())]
    async with _running(command, store.folder, _NO_LIMITS | store.environment | given, "/readyz") as service:
        yield service


@asynccontextmanager
async def comparison_server(kind: str, store: Store) -> AsyncIterator[Service]:
    """Run a server of `tests.bench.comparison_servers` on the store; `kind` is one of its `KINDS`."""
    command = ["tests.bench.comparison_servers", kind, str(free_port())]
    async with _running(command, store.folder, store.environment, "/livez") as service:
        yield service


@asynccontextmanager
async def bare_server(folder: Path, subscriber_url: str) -> AsyncIterator[Service]:
    """Run a server that posts webhooks on to the subscriber and does nothing else (`tests.bench.bare_server`)."""
    command = ["tests.bench.bare_server", str(urlsplit(subscriber_url).port), str(free_port())]
    async with _running(command, folder, {}, "/livez") as service:
        yield service


@asynccontextmanager
async def sandbox(folder: Path, *options: str) -> AsyncIterator[Service]:
    """Run the bundled provider, `ringback sandbox`."""
    command = ["receiver.cli", "sandbox", *options, "--port", str(free_port())]
    async with _running(command, folder, {}, "/sandbox/stats") as service:
        yield service


def free_port() -> int:
    """Return a loopback port on which no process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@asynccontextmanager
async def _running(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], path: str
) -> AsyncIterator[Service]:
    """Run a module with its arguments, of which the port is the last; yield it when it answers at `path`."""
    log = folder / "server.log"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RINGBACK_")}
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *command),
            cwd=folder,
            env={**inherited, "PYTHONPATH": str(_ROOT), **environment},
            stdout=output,
            stderr=output,
        )
    service = Service(int(command[-1]), process, log)
    try:
        await _wait_until_ready(service, path)
        yield service
    finally:
        if process.returncode is None:  # its state is not needed any more, and a graceful stop would take time
            process.kill()
        await process.wait()


async def _wait_until_ready(service: Service, path: str) -> None:
    """Return when the server answers with 200, or with 404 if it does not have this path."""
    async with asyncio.timeout(_START_SECONDS):
        while service.process.returncode is None:
            try:
                status, _ = await service.exchange("GET", path)
            except OSError:
                await asyncio.sleep(_CHECK_SECONDS)
                continue
            if status in (200, 404):
                return
    raise SystemExit(f"a server did not start; its log:\n{service.log.read_text(errors='replace')}")
