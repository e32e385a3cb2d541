"""A supervisor and its workers as processes: their log, their answers worker by worker, and a load of requests."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

READY, ENDED, RESTARTING = "worker ready", "worker ended unexpectedly", "restarting worker"
REPLACED, NOT_REPLACED = "replaced all workers", "could not replace worker; kept the old one"
KILLED = "worker exceeded grace period; sent SIGKILL"
BOUND_SECONDS = 90.0
_PAUSE_SECONDS = 0.01
"""Between two requests of a load: without it, they take the processors from the workers that start."""
_ROOT = Path(__file__).resolve().parents[2]


class SupervisedService:
    """A supervisor's process. `pids` are the process ids of the workers that logged that they are ready."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.url = ""
        self.pids: list[int] = []

    async def wait_ready(self, workers: int) -> None:
        """Wait until `workers` of them are ready. Raises AssertionError if the service ends before that."""
        while len(self.pids) < workers:
            await self.logged(READY)
        assert self.process.stdout is not None
        while not self.url:  # a stand-in prints it
            self.url = (await self.process.stdout.readline()).decode().strip()

    async def logged(self, *events: str) -> dict[str, Any]:
        """Return the next log record of one of these events. Raises AssertionError at the end of the log."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            entry = json.loads(line)
            if entry["event"] == "listening":
                self.url = entry["url"]
            if entry["event"] == READY:
                self.pids.append(entry["pid"])
            if entry["event"] in events:
                return dict(entry)
        raise AssertionError(f"the service ended without logging {events}")

    async def wait_ended(self) -> None:
        """Wait until the supervisor and all workers have ended: then nothing has its standard error open."""
        assert self.process.stderr is not None
        await self.process.stderr.read()

    async def stop(self, which: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to the supervisor; return its exit status when all processes have ended."""
        self.process.send_signal(which)
        await self.wait_ended()
        return await self.process.wait()

    async def get(self, path: str, **headers: str) -> Any:
        """Send a request on a new connection; return the JSON of the response, which must be a 200."""
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=BOUND_SECONDS) as client:
            response = await client.get(path)
        assert response.status_code == 200
        return response.json()

    async def metric(self, name: str) -> float:
        """Return the sum of the samples of this name at `/metrics`."""
        async with httpx.AsyncClient(base_url=self.url, timeout=BOUND_SECONDS) as client:
            families = text_string_to_metric_families((await client.get("/metrics")).text)
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    @contextmanager
    def only(self, pid: int) -> Iterator[None]:
        """Let only this worker answer: suspend the others."""
        others = [other for other in self.pids if other != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)

    async def in_progress(self, path: str) -> list[asyncio.Task[Any]]:
        """Send each worker a request that it does not answer by itself; return the requests when all have begun."""
        requests = []
        for pid in self.pids:
            with self.only(pid):
                before = await self.metric("ringback_streams_open")
                requests.append(asyncio.create_task(self.get(path)))
                while await self.metric("ringback_streams_open") == before:
                    pass
        return requests


@asynccontextmanager
async def load(url: str, **headers: str) -> AsyncIterator[Counter[int | str]]:
    """Send requests one after the other, on a connection that stays open and on new ones; count statuses and errors."""
    statuses: Counter[int | str] = Counter()
    ending = asyncio.Event()

    async def send(max_idle: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=max_idle)
        async with httpx.AsyncClient(headers=headers, limits=limits, timeout=BOUND_SECONDS) as client:
            while not ending.is_set():
                try:
                    statuses[(await client.get(url)).status_code] += 1
                except httpx.TransportError as error:
                    statuses[repr(error)] += 1
                await asyncio.sleep(_PAUSE_SECONDS)

    sending = [asyncio.create_task(send(max_idle)) for max_idle in (0, 1)]
    try:
        yield statuses
    finally:
        ending.set()  # not cancelled, because httpx would leave half-open connections behind
        await asyncio.gather(*sending)


@asynccontextmanager
async def supervised(folder: Path, *command: str, **settings: str) -> AsyncIterator[SupervisedService]:
    """Run a command that supervises workers, in `folder`; at the end kill it if it still runs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RINGBACK_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command),
        cwd=folder,
        env={**clean, "PYTHONPATH": str(_ROOT), **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    service = SupervisedService(process)
    try:
        async with asyncio.timeout(BOUND_SECONDS):
            yield service
    finally:
        if process.returncode is None:
            process.kill()
        try:
            async with asyncio.timeout(BOUND_SECONDS):
                await process.communicate()
        except TimeoutError:  # workers outlived their supervisor
            for pid in service.pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise
