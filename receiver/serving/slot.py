"""A worker slot: keeps one worker process running, restarts it when it ends, and replaces it on request."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from receiver.serving.worker import WorkerProcess
from receiver.telemetry.log import get_logger

log = get_logger("serving.slot")

_START_SECONDS = 60.0
"""How long a worker that is to replace another one may take to become ready."""
_QUICK_SECONDS = 10.0
"""A worker that ended sooner than this after its start ended quickly."""
_FIRST_DELAY_SECONDS = 0.1
_MAX_DELAY_SECONDS = 30.0
_CANNOT_START = 71
"""Exit status when the system could not create the process (`EX_OSERR`)."""


def restart_delay(quick_ends: int) -> float:
    """Return the seconds to wait before a restart, after `quick_ends` workers in a row that ended quickly."""
    return min(_FIRST_DELAY_SECONDS * 2.0 ** (quick_ends - 1), _MAX_DELAY_SECONDS) if quick_ends else 0.0


class WorkerSlot:
    """Keeps one worker running. `start` starts a worker process; it may raise `OSError`."""

    def __init__(self, start: Callable[[], Awaitable[WorkerProcess]]) -> None:
        self._start = start
        self._was_ready = False
        """Whether any worker of this slot ever became ready; until then a failing start is final."""
        self.ready = asyncio.Event()
        """Set when the first worker is ready."""
        self._replacement_requested = asyncio.Event()
        self._replacement_done = asyncio.Event()
        self._replaced = False

    async def run(self) -> int:
        """Keep a worker running. Return only if the first one cannot start: its exit status.

        Once a worker was ready, one that ends is restarted, after a delay that grows while they end quickly.
        """
        quick_ends = 0
        while True:
            started_at = time.monotonic()
            status = await self._run_worker()
            if status > 0 and not self._was_ready:
                return status
            quick_ends = quick_ends + 1 if time.monotonic() - started_at < _QUICK_SECONDS else 0
            delay = restart_delay(quick_ends)
            log.info("restarting worker", delay_seconds=delay)
            await asyncio.sleep(delay)

    async def replace(self) -> bool:
        """Replace the worker by a new one; return whether the new one is ready. If it is not, the old one stays."""
        self._replacement_done.clear()
        self._replacement_requested.set()
        await self._replacement_done.wait()
        return self._replaced

    async def _run_worker(self) -> int:
        """Start a worker; return its exit status when it has ended, or that of the last one that replaced it."""
        worker = await self._try_start()
        if worker is None:
            return _CANNOT_START
        if await worker.wait_ready():
            self._was_ready = True
            self.ready.set()
        while True:
            ended = asyncio.create_task(worker.wait_ended())
            await wait_for_first(ended, asyncio.create_task(self._replacement_requested.wait()))
            if not self._replacement_requested.is_set():
                return ended.result()
            worker = await self._replacement_of(worker)

    async def _replacement_of(self, old: WorkerProcess) -> WorkerProcess:
        """Return the new worker, after the old one has ended; or the old one if no new one became ready."""
        self._replacement_requested.clear()
        new = await self._try_start()
        self._replaced = new is not None and await _becomes_ready(new)
        if self._replaced:
            await old.replaced()
        else:
            log.error("could not replace worker; kept the old one", pid=old.pid)
        self._replacement_done.set()
        return new if new is not None and self._replaced else old

    async def _try_start(self) -> WorkerProcess | None:
        try:
            return await self._start()
        except OSError as error:
            log.error("could not create worker process", error=str(error))
            return None


async def wait_for_first(*tasks: asyncio.Task[Any]) -> None:
    """Wait until one of the tasks is done, and cancel the others."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _becomes_ready(worker: WorkerProcess) -> bool:
    try:
        async with asyncio.timeout(_START_SECONDS):
            return await worker.wait_ready()
    except TimeoutError:
        worker.kill("worker did not become ready in time; sent SIGKILL")
        return False
