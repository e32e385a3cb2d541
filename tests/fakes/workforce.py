"""A process that keeps workers, watched from outside: what it logs, who answers, and a load of requests."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

READY, ENDED, AGAIN = "a worker is ready", "a worker ended", "a worker is started again"
RENEWED, NOT_RENEWED = "all workers are new", "no new worker could be started: the old ones stay"
BOUND_SECONDS = 90.0
_ROOT = Path(__file__).resolve().parents[2]


class Service:
    """A process that keeps workers, and what it logs. `pids` are the workers that said they are ready."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.printed = ""
        self.url = ""
        self.pids: list[int] = []

    async def begin(self, workers: int) -> None:
        """Wait until so many are ready. Raises AssertionError if it ends instead."""
        while len(self.pids) < workers:
            await self.logged(READY)
        assert self.process.stdout is not None
        while (found := re.search(r"http://[^,\s]+", self.printed)) is None:
            self.printed += (await self.process.stdout.readline()).decode()
        self.url = found[0]

    async def logged(self, *events: str) -> dict[str, Any]:
        """Return the next line of the log that is one of these events. Raises AssertionError at the log's end."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            entry = json.loads(line)
            if entry["event"] == READY:
                self.pids.append(entry["pid"])
            if entry["event"] in events:
                return dict(entry)
        raise AssertionError(f"it ended, and never said {events}")

    async def silence(self) -> None:
        """Wait until nobody is there who could log: neither it nor a worker."""
        assert self.process.stderr is not None
        await self.process.stderr.read()

    async def stop(self, which: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; return the exit status when nobody is there any more."""
        self.process.send_signal(which)
        await self.silence()
        return await self.process.wait()

    async def get(self, path: str, **headers: str) -> Any:
        """Ask on a connection of its own; return the answer, which must be a 200."""
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=BOUND_SECONDS) as client:
            answer = await client.get(path)
        assert answer.status_code == 200
        return answer.json()

    async def metric(self, name: str) -> float:
        """Return the sum of a metric's samples of this name."""
        async with httpx.AsyncClient(base_url=self.url, timeout=BOUND_SECONDS) as client:
            families = text_string_to_metric_families((await client.get("/metrics")).text)
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    @contextmanager
    def only(self, pid: int) -> Iterator[None]:
        """Let only this worker answer: the others stand still."""
        others = [other for other in self.pids if other != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)

    async def under_way(self, path: str) -> list[asyncio.Task[Any]]:
        """Ask every worker for what does not end by itself; return when each of them is at it."""
        asking = []
        for pid in self.pids:
            with self.only(pid):
                before = await self.metric("ringback_streams_open")
                asking.append(asyncio.create_task(self.get(path)))
                while await self.metric("ringback_streams_open") == before:
                    pass
        return asking


@asynccontextmanager
async def load(url: str, **headers: str) -> AsyncIterator[Counter[int | str]]:
    """Ask without a pause, on a connection that stays open and on new ones; give how often which status came."""
    answers: Counter[int | str] = Counter()
    over = asyncio.Event()

    async def ask(most_kept: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=most_kept)
        async with httpx.AsyncClient(headers=headers, limits=limits, timeout=BOUND_SECONDS) as client:
            while not over.is_set():
                try:
                    answers[(await client.get(url)).status_code] += 1
                except httpx.TransportError as error:
                    answers[repr(error)] += 1

    asking = [asyncio.create_task(ask(most_kept)) for most_kept in (0, 1)]
    try:
        yield answers
    finally:
        over.set()  # and none is cancelled: httpx leaves what it had begun of a connection behind
        await asyncio.gather(*asking)


@asynccontextmanager
async def kept(folder: Path, *command: str, **settings: str) -> AsyncIterator[Service]:
    """Run a command that keeps workers, in `folder`; at the end kill it if it still runs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RINGBACK_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command),
        cwd=folder,
        env={**clean, "PYTHONPATH": str(_ROOT), **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    service = Service(process)
    try:
        async with asyncio.timeout(BOUND_SECONDS):
            yield service
    finally:
        if process.returncode is None:
            process.kill()
        try:
            async with asyncio.timeout(BOUND_SECONDS):
                await process.communicate()
        except TimeoutError:  # it left workers behind
            for pid in service.pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise
