"""`ringback serve --workers N`: one process keeps N others going, which serve on the socket that it listens on.

Each worker shares a pair of sockets with it, the control socket: the worker reports there that it is ready, and reads
end-of-file when the supervising process is gone, whatever ended that.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Self

from receiver.telemetry import forget_worker, get_logger, shared_counters

log = get_logger("serving.workers")

GRACE_SECONDS = 50.0
"""How long a worker may take to stop: a little more than it gives its connections and what it drains in turn."""
_HURRY_SECONDS = 3.0
"""How long it may take after a second Ctrl-C."""
_START_SECONDS = 60.0
"""How long a worker that is to replace another may take to be ready."""
_STEADY_SECONDS = 10.0
"""A worker that died sooner than this died quickly."""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0

_READY = b"r"
_NO_PROCESS = 71
"""As an exit status: the system had no room for one more process (`EX_OSERR`)."""
_ENDED_WELL = (0, -signal.SIGTERM)
"""The second is that of one that was asked before it had begun to serve."""


def pause_after(quick_deaths: int) -> float:
    """Return the seconds to wait before a worker is started again, after so many that died quickly in a row."""
    return min(_FIRST_PAUSE_SECONDS * 2.0 ** (quick_deaths - 1), _LONGEST_PAUSE_SECONDS) if quick_deaths else 0.0


def report_ready(control_socket: socket.socket) -> None:
    """Tell the process that keeps this worker that it serves."""
    with contextlib.suppress(OSError):  # nobody is there any more: that is `stop_with_supervisor`'s to notice
        control_socket.send(_READY)


def stop_with_supervisor(control_socket: socket.socket) -> None:
    """End this worker when the process that keeps it is gone: gracefully, or by SIGKILL if that takes too long."""

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # that is for the keeper

    def watch() -> None:
        control_socket.recv(1)  # nothing is ever written
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="ringback-control", daemon=True).start()


class Worker:
    """One process that serves, seen from the one that keeps it."""

    def __init__(self, process: asyncio.subprocess.Process, control_socket: socket.socket) -> None:
        self.asked = False
        self._process = process
        self._control_socket = control_socket
        self._ready = asyncio.create_task(self._hear())

    @classmethod
    async def start(cls, command: Sequence[str], listening: socket.socket, environment: Mapping[str, str]) -> Self:
        """Start one. Ctrl-C at a terminal does not reach it: it hears what its keeper tells it."""
        control_socket, far_end = socket.socketpair()
        with far_end:
            fds = (listening.fileno(), far_end.fileno())
            process = await asyncio.create_subprocess_exec(
                *command,
                *("--fd", str(fds[0]), "--control-fd", str(fds[1])),
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
                pass_fds=fds,
                process_group=0,
            )
        control_socket.setblocking(False)
        return cls(process, control_socket)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self) -> bool:
        """Wait until it serves; return False if it ended before."""
        return await asyncio.shield(self._ready)

    async def ended(self) -> int:
        """Wait for its end; return its exit status, or minus the signal that ended it."""
        status = await self._process.wait()
        await asyncio.wait({self._ready})
        self._control_socket.close()
        return status

    async def end(self) -> None:
        """End it: gracefully, or by SIGKILL if that takes too long."""
        self.ask()
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()

    def ask(self) -> None:
        """Ask it to stop gracefully, unless it was asked before."""
        if not self.asked:
            self.asked = True
            self.send(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it, if it lives."""
        if self._process.returncode is None:
            log.error("a worker does not do what it is told in time, and is killed", pid=self.pid)
            self.send(signal.SIGKILL)

    def send(self, which: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(which)

    async def _hear(self) -> bool:
        heard = b""
        with contextlib.suppress(ConnectionError):
            heard = await asyncio.get_running_loop().sock_recv(self._control_socket, 1)
        if heard:
            log.info("a worker is ready", pid=self.pid)
        return bool(heard)


class WorkerSlot:
    """Where there is always a worker: another one if it died, and a new one when that is asked for."""

    def __init__(self, start: Callable[[], Awaitable[Worker]]) -> None:
        self._start = start
        self._proven = False
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()
        self._renewed = False

    async def keep(self) -> int:
        """Have a worker here, for ever. Return only if the first cannot start: its exit status."""
        quick_deaths = 0
        while True:
            began = time.monotonic()
            status = await self._one_life()
            if status > 0 and not self._proven:
                return status
            quick_deaths = quick_deaths + 1 if time.monotonic() - began < _STEADY_SECONDS else 0
            pause = pause_after(quick_deaths)
            log.info("a worker is started again", seconds=pause)
            await asyncio.sleep(pause)

    async def renew(self) -> bool:
        """Put a new worker here; return whether it serves. If it does not, the old one stays."""
        self._settled.clear()
        self._wanted.set()
        await self._settled.wait()
        return self._renewed

    async def _one_life(self) -> int:
        """Start a worker; return its exit status when it has ended, or that of the last one that replaced it."""
        worker = await self._begun()
        if worker is None:
            return _NO_PROCESS
        self._proven = await worker.ready() or self._proven
        while True:
            ended, wanted = asyncio.create_task(worker.ended()), asyncio.create_task(self._wanted.wait())
            await _first(ended, wanted)
            if not self._wanted.is_set():
                return ended.result()
            worker = await self._replaced(worker)

    async def _replaced(self, old: Worker) -> Worker:
        """Return the worker that took its place, or itself if none could."""
        self._wanted.clear()
        new = await self._begun()
        self._renewed = new is not None and await _starts(new)
        if self._renewed:
            await old.end()
        else:
            log.error("no new worker could be started: the old ones stay")
        self._settled.set()
        return new if new is not None and self._renewed else old

    async def _begun(self) -> Worker | None:
        try:
            return await self._start()
        except OSError as error:
            log.error("the system has no room for a process", reason=str(error))
            return None


async def _starts(worker: Worker) -> bool:
    try:
        async with asyncio.timeout(_START_SECONDS):
            return await worker.ready()
    except TimeoutError:
        worker.kill()
        return False


async def _first(*tasks: asyncio.Task[Any]) -> None:
    """Wait until one of them is done, and cancel the others."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


class Workers:
    """All of them. `command` gets the sockets as `--fd` and `--control-fd`; `counters` keeps the counters."""

    def __init__(self, command: Sequence[str], listening: socket.socket, workers: int, counters: Path) -> None:
        self._command = command
        self._listening = listening
        self._counters = counters
        self._slots = [WorkerSlot(self._start) for _ in range(workers)]
        self._numbers: set[int] = set()
        self._lives: dict[Worker, asyncio.Task[int]] = {}
        self._told = asyncio.Event()
        self._hurried = asyncio.Event()
        self._renewal = asyncio.Event()

    async def run(self) -> int:
        """Keep them until SIGTERM or SIGINT, or until one cannot start; return the exit status: 0 if all ended well.

        SIGHUP replaces them one after the other.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        loop.add_signal_handler(signal.SIGHUP, self._renewal.set)
        keeping = [asyncio.create_task(slot.keep()) for slot in self._slots]
        others = [asyncio.create_task(self._told.wait()), asyncio.create_task(self._renew_when_asked())]
        try:
            await _first(*keeping, *others)
        finally:
            results = await asyncio.gather(*keeping, *others, return_exceptions=True)
            ended = await self._end()
        for result in results:
            if isinstance(result, Exception):
                raise result
        return next((result for result in results[: len(keeping)] if isinstance(result, int)), ended)

    async def _start(self) -> Worker:
        number = next(number for number in count() if number not in self._numbers)
        self._numbers.add(number)
        worker = await Worker.start(self._command, self._listening, shared_counters(self._counters, number))
        self._lives[worker] = asyncio.create_task(self._live(worker, number))
        return worker

    async def _live(self, worker: Worker, number: int) -> int:
        status = await worker.ended()
        if not worker.asked:
            log.error("a worker ended", pid=worker.pid, status=status)
        forget_worker(self._counters, number)
        self._numbers.discard(number)
        del self._lives[worker]
        return status

    async def _renew_when_asked(self) -> None:
        while True:
            await self._renewal.wait()
            self._renewal.clear()
            for slot in self._slots:
                if not await slot.renew():
                    break
            else:
                log.info("all workers are new")

    def _interrupted(self) -> None:
        if self._told.is_set():
            self._hurried.set()
        self._told.set()

    async def _end(self) -> int:
        """End all that live; return 0 if all ended well."""
        lives = self._lives.copy()
        for worker in lives:
            worker.ask()
        ended = asyncio.gather(*lives.values())
        hurried = asyncio.create_task(self._hurry(lives))
        either: list[asyncio.Future[Any]] = [ended, hurried]
        await asyncio.wait(either, timeout=GRACE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for worker in lives:
            worker.kill()
        status = next((status for status in await ended if status not in _ENDED_WELL), 0)
        return status if status >= 0 else 128 - status

    async def _hurry(self, workers: Iterable[Worker]) -> None:
        """Return when a second Ctrl-C came and they had their time to heed it."""
        await self._hurried.wait()
        for worker in workers:
            worker.send(signal.SIGINT)
        await asyncio.sleep(_HURRY_SECONDS)
