"""The supervisor of `ringback serve --workers N`: one process that keeps N workers serving on its listening socket."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from receiver.serving.notify import Notifier
from receiver.serving.slot import WorkerSlot, wait_for_first
from receiver.serving.worker import GRACE_EXCEEDED, WorkerProcess
from receiver.stop_bound import StopBound
from receiver.telemetry.exposition import forget_worker, shared_counters
from receiver.telemetry.log import get_logger

log = get_logger("serving.supervisor")

_INTERRUPT_SECONDS = 3.0
"""How long workers may take to stop after a second Ctrl-C."""
_CLEAN_EXITS = (0, -signal.SIGTERM)
"""The second is that of a worker that received SIGTERM before it had begun to serve."""


class WorkerSupervisor:
    """Keeps `workers` processes of `command` running until a signal stops it.

    `command` gets the listening socket as `--fd` and the control socket as `--control-fd`. The workers share their
    metrics in the folder `counters`. A stop takes no longer than `bound`, nor does that of a worker that is replaced.
    `notifier` tells systemd of them. `on_ready` is called when all workers are ready, and `on_stop` when they are to
    stop, with the reason: the name of the signal.
    """

    def __init__(
        self,
        command: Sequence[str],
        listening: socket.socket,
        workers: int,
        counters: Path,
        bound: StopBound,
        notifier: Notifier | None = None,
        *,
        on_ready: Callable[[], None] = lambda: None,
        on_stop: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._on_ready, self._on_stop = on_ready, on_stop
        self._stop_reason = "no worker could start"
        self._command = command
        self._listening = listening
        self._counters = counters
        self._bound = bound
        self._notifier = notifier or Notifier(None)
        self._slots = [WorkerSlot(self._start_worker) for _ in range(workers)]
        self._numbers: set[int] = set()
        """The numbers of the running workers, which name the files of their metrics."""
        self._running: dict[WorkerProcess, asyncio.Task[int]] = {}
        self._stop_requested = asyncio.Event()
        self._stop_signal = signal.SIGTERM
        self._interrupted_again = asyncio.Event()
        self._replacement_requested = asyncio.Event()

    async def run(self) -> int:
        """Keep the workers running until SIGTERM or SIGINT, or until one cannot start; SIGHUP replaces each in turn.

        Returns the exit status: 0 if all workers ended well.
        """
        loop = asyncio.get_running_loop()
        for stop in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop, self._handle_stop, stop)
        loop.add_signal_handler(signal.SIGHUP, self._replacement_requested.set)
        slots = [asyncio.create_task(slot.run()) for slot in self._slots]
        others = [asyncio.create_task(self._stop_requested.wait()), asyncio.create_task(self._replace_on_request())]
        others.append(asyncio.create_task(self._announce()))
        try:
            await wait_for_first(*slots, *others)
        finally:
            results = await asyncio.gather(*slots, *others, return_exceptions=True)
            stopped = await self._stop_all()
        for result in results:
            if isinstance(result, Exception):
                raise result
        return next((result for result in results[: len(slots)] if isinstance(result, int)), stopped)

    async def _start_worker(self) -> WorkerProcess:
        number = next(number for number in count() if number not in self._numbers)
        self._numbers.add(number)
        environment = shared_counters(self._counters, number)
        worker = await WorkerProcess.start(self._command, self._listening, environment, self._bound.seconds)
        self._running[worker] = asyncio.create_task(self._wait_ended(worker, number))
        return worker

    async def _wait_ended(self, worker: WorkerProcess, number: int) -> int:
        """Wait until a worker has ended, and release what it held; return its exit status."""
        status = await worker.wait_ended()
        if not worker.stop_requested:
            log.error("worker ended unexpectedly", pid=worker.pid, status=status)
        forget_worker(self._counters, number)
        self._numbers.discard(number)
        del self._running[worker]
        return status

    @property
    def _status(self) -> str:
        return f"serving with {len(self._slots)} workers"

    async def _announce(self) -> None:
        """Tell when all are ready, and systemd from then on that they still work; it never returns."""
        for slot in self._slots:
            await slot.ready.wait()
        self._on_ready()
        self._notifier.ready(self._status)
        self._notifier.watch(lambda seconds: all(worker.has_answered(seconds) for worker in self._running))
        await asyncio.Event().wait()

    async def _replace_on_request(self) -> None:
        while True:
            await self._replacement_requested.wait()
            self._replacement_requested.clear()
            self._notifier.reloading()
            status = "kept the old workers"
            for slot in self._slots:
                if not await slot.replace():
                    break
            else:
                log.info("replaced all workers")
                status = self._status
            self._notifier.ready(status)

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._stop_requested.is_set()

    def _handle_stop(self, which: signal.Signals) -> None:
        """Begin the stop; at a second signal end the lame duck, at a second Ctrl-C do not wait for requests."""
        if not self.is_stopping:
            self._stop_signal, self._stop_reason = which, which.name
            self._bound.begin(lame=which == signal.SIGTERM)
            self._stop_requested.set()
        elif self._bound.is_lame:
            self._bound.end_lame_duck()
            for worker in self._running:
                worker.send_signal(signal.SIGINT)
        elif which == signal.SIGINT:
            self._interrupted_again.set()

    async def _stop_all(self) -> int:
        """Stop all running workers; return 0 if all ended well, else the first other exit status."""
        self._on_stop(self._stop_reason)
        self._notifier.stopping()
        running = self._running.copy()
        for worker in running:
            worker.request_stop(self._stop_signal)
        # When the workers accept no more connections, further ones are to be refused, and not to wait here.
        self._listening.close()
        ended = asyncio.gather(*running.values())
        interrupted = asyncio.create_task(self._interrupt(running))
        either: list[asyncio.Future[Any]] = [ended, interrupted]
        await asyncio.wait(either, timeout=self._bound.seconds_until(1.0), return_when=asyncio.FIRST_COMPLETED)
        interrupted.cancel()
        for worker in running:
            worker.kill(GRACE_EXCEEDED)
        status = next((status for status in await ended if status not in _CLEAN_EXITS), 0)
        return status if status >= 0 else 128 - status

    async def _interrupt(self, workers: Iterable[WorkerProcess]) -> None:
        """After a second Ctrl-C, send SIGINT to the workers; return when their time to obey it is over."""
        await self._interrupted_again.wait()
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        await asyncio.sleep(_INTERRUPT_SECONDS)
