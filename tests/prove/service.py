"""One process of the service under proof: started, killed, stopped, frozen and woken."""

import asyncio
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.fakes.fork_server import Child, ForkServer
from tests.fakes.ports import free_port
from tests.fakes.stepped_clock import SteppedClock

START_SECONDS = 60.0
"""How long a process may take to start or to stop, on a busy machine."""
_LOOK_SECONDS = 0.02
_RESTART_SECONDS = 0.5


class NotStarted(Exception):
    """The service did not start; the message has the end of its log."""


class Service:
    """`ringback serve` on a port of its own. It keeps the port across restarts.

    `points` are crash points and other changes that each start of it gets (`tests.fakes.crash_points`).
    """

    def __init__(
        self, name: str, folder: Path, environment: Mapping[str, str], forks: ForkServer, points: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.clock = SteppedClock(folder / f"{name}.clock")
        self.environment = {**environment, **self.clock.environment}
        self.starts = 0
        self.is_frozen = False
        self.root = forks.root
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._forks = forks
        self._points = points
        self._child: Child | None = None
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int:
        """The id of the process that runs, or ran last."""
        assert self._child is not None
        return self._child.pid

    @property
    def runs(self) -> bool:
        """Whether the process exists, frozen or not."""
        return self._child is not None and self._child.returncode is None

    async def start(self, *points: str) -> None:
        """Start it if it does not run; return when it is ready. `points` are for this start alone.

        If it ends, because the database cannot be reached for example, it is started again, as by a process manager.
        Raises `NotStarted`, unless it was started with points: then it may have died at one.
        """
        async with self._starting:
            if not self.runs:
                await self._start(points)

    async def command(self, *arguments: str) -> int:
        """Run another command of `ringback` to its end; return its exit status."""
        child = await self._forks.begin(
            *arguments, folder=self._folder, environment=self.environment, log=self._log, crash=None
        )
        async with asyncio.timeout(START_SECONDS):
            return await child.wait()

    async def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """End it with SIGTERM; return its exit status. Raises TimeoutError."""
        return await self._end(signal.SIGTERM)

    async def dies(self, seconds: float) -> bool:
        """Wait for it to end by itself; return whether it did."""
        assert self._child is not None
        try:
            async with asyncio.timeout(seconds):
                await self._child.wait()
        except TimeoutError:
            return False
        return True

    def freeze(self) -> None:
        """Stop it from running (SIGSTOP), as a machine that is suspended or swaps."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)
        self.is_frozen = True

    def wake(self) -> None:
        """Let it run on."""
        if self._child is not None and self.is_frozen:
            self._child.send_signal(signal.SIGCONT)
        self.is_frozen = False

    def log(self) -> str:
        """Return everything that it printed."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    async def _start(self, points: tuple[str, ...]) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            self.starts += 1
            self._child = await self._forks.begin(
                *("serve", "--port", str(self.port)),
                folder=self._folder,
                environment=self.environment,
                log=self._log,
                crash=",".join((*self._points, *points)) or None,
            )
            if await self._is_ready() or points:
                return
            await asyncio.sleep(_RESTART_SECONDS)
        raise NotStarted(f"{self.name} did not start: {self.log()[-1000:]}")

    async def _end(self, which: signal.Signals) -> int:
        if self._child is None:
            return 0
        self._child.send_signal(which)
        self.is_frozen = False
        async with asyncio.timeout(START_SECONDS):
            return await self._child.wait()

    async def _is_ready(self) -> bool:
        async with httpx.AsyncClient(base_url=self.base, timeout=5, trust_env=False) as client:
            try:
                async with asyncio.timeout(START_SECONDS):
                    while self.runs:
                        try:
                            if (await client.get("/readyz")).status_code == 200:
                                return True
                        except httpx.TransportError:
                            pass
                        await asyncio.sleep(_LOOK_SECONDS)
            except TimeoutError:
                pass
        return False
