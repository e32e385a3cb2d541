"""One worker process of `ringback serve --workers N`, seen from both ends of its control socket.

The supervisor and each worker share a pair of connected sockets, the control socket. The worker sends a byte on it when
it is ready, and then one every second from its event loop. The supervisor never writes; when its process ends, whatever
the reason, the worker reads end-of-file there and stops too.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Self

from receiver.stop_bound import StopBound
from receiver.telemetry.log import get_logger

log = get_logger("serving.worker")

HAND_OVER = signal.SIGUSR1
"""The signal to a worker whose successor serves: stop, and leave connections that wait to be accepted to the others."""
GRACE_EXCEEDED = "worker exceeded grace period; sent SIGKILL"

_ANSWERS = b"r"
_BEAT_SECONDS = 1.0
_MISSED_BEATS = 3


def report_answering(control_socket: socket.socket) -> None:
    """From now on report, from the running loop, that this worker answers requests. Called in the worker."""
    with contextlib.suppress(OSError):  # the supervisor is gone, which `SupervisorWatch` handles, or does not read now
        control_socket.send(_ANSWERS, socket.MSG_DONTWAIT)
    asyncio.get_running_loop().call_later(_BEAT_SECONDS, report_answering, control_socket)


class SupervisorWatch:
    """Stops this worker when its supervisor ends: gracefully, or by SIGKILL after `grace_seconds`."""

    def __init__(self, control_socket: socket.socket) -> None:
        self.grace_seconds = StopBound().seconds
        """The default, until the worker has read its settings."""
        self._control_socket = control_socket

    def start(self) -> None:
        """Begin, in the worker, before anything that takes time.

        SIGHUP, which a terminal or an operator may send to the whole process group, is ignored from now on: it is meant
        for the supervisor.
        """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        threading.Thread(target=self._watch, name="ringback-control", daemon=True).start()

    def _watch(self) -> None:
        self._control_socket.recv(1)  # the supervisor never writes, so this returns at end-of-file
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self.grace_seconds)
        os.kill(os.getpid(), signal.SIGKILL)


class WorkerProcess:
    """One worker process, seen from its supervisor."""

    def __init__(
        self, process: asyncio.subprocess.Process, control_socket: socket.socket, grace_seconds: float
    ) -> None:
        self.stop_requested = False
        self._process = process
        self._control_socket = control_socket
        self._grace_seconds = grace_seconds
        self._heard_at = time.monotonic()
        self._ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._hearing = asyncio.create_task(self._hear())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        listening: socket.socket,
        environment: Mapping[str, str],
        grace_seconds: float,
    ) -> Self:
        """Start a worker with the two sockets as `--fd` and `--control-fd`. Raises `OSError`.

        It gets its own process group, so that Ctrl-C at a terminal reaches the supervisor alone, which then stops
        its workers in order.
        """
        control_socket, worker_end = socket.socketpair()
        with worker_end:
            fds = (listening.fileno(), worker_end.fileno())
            process = await asyncio.create_subprocess_exec(
                *command,
                *("--fd", str(fds[0]), "--control-fd", str(fds[1])),
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
                pass_fds=fds,
                process_group=0,
            )
        control_socket.setblocking(False)
        return cls(process, control_socket, grace_seconds)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def wait_ready(self) -> bool:
        """Wait until it answers requests; return False if it ends before that."""
        return await asyncio.shield(self._ready)

    async def wait_ended(self) -> int:
        """Wait until it has ended; return its exit status, or minus the number of the signal that ended it."""
        status = await self._process.wait()
        await asyncio.wait({self._hearing})
        self._control_socket.close()
        return status

    async def replaced(self) -> None:
        """Stop it, whose successor serves, or by SIGKILL when its grace period is over; return when it has ended."""
        self.request_stop(HAND_OVER)
        try:
            async with asyncio.timeout(self._grace_seconds):
                await self.wait_ended()
        except TimeoutError:
            self.kill(GRACE_EXCEEDED)
            await self.wait_ended()

    def request_stop(self, which: signal.Signals) -> None:
        """Send a signal to stop, unless that was done before. One that is not ready gets SIGTERM."""
        if not self.stop_requested:
            self.stop_requested = True
            self.send_signal(which if self._ready.done() else signal.SIGTERM)

    def kill(self, event: str) -> None:
        """Send SIGKILL if it still runs, and log why: `event` is the log record's event."""
        if self._process.returncode is None:
            log.error(event, pid=self.pid)
            self.send_signal(signal.SIGKILL)

    def send_signal(self, which: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(which)

    def has_answered(self, seconds: float) -> bool:
        """Return whether its event loop has run in the last `seconds`, or it is not ready yet."""
        is_ready = self._ready.done() and self._ready.result()
        return not is_ready or time.monotonic() - self._heard_at < max(seconds, _MISSED_BEATS * _BEAT_SECONDS)

    async def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while await loop.sock_recv(self._control_socket, 64):
                self._heard_at = time.monotonic()
                if not self._ready.done():
                    log.info("worker ready", pid=self.pid)
                    self._ready.set_result(True)
        if not self._ready.done():
            self._ready.set_result(False)
