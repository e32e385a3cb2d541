"""What systemd is told of this service (`Type=notify`, `WatchdogSec=`): the protocol of `sd_notify(3)`."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable

from receiver.environment import take_notify_socket

_ABSTRACT = "@"
_SEND_SECONDS = 1.0
"""How long a message waits for room at the receiver. That the service works is said again anyway."""


class Notifier:
    """Sends messages to `path`, the socket that is to be notified; does nothing if there is none.

    With `watchdog_seconds`, it is expected to say in that time that the service still works.
    """

    def __init__(self, path: str | None, watchdog_seconds: float | None = None) -> None:
        self._path = path
        self.watchdog_seconds = None if path is None else watchdog_seconds
        self._is_stopping = False

    @classmethod
    def take(cls) -> "Notifier":
        """Return the one that the environment asks for, and remove it from there: child processes are not to use it."""
        return cls(*take_notify_socket())

    def ready(self, status: str) -> None:
        """Say that requests are answered, at the start or after `reloading`."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that the processes are being replaced; `ready` says that it is done."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}", "STATUS=replacing the workers")

    def stopping(self) -> None:
        """Say, once, that the stop has begun."""
        if not self._is_stopping:
            self._is_stopping = True
            self._send("STOPPING=1", "STATUS=stopping")

    def watch(self, answers: Callable[[float], bool] = lambda _seconds: True) -> None:
        """From now on say, from the running loop, that the service works, twice in each of its times.

        A loop that is held says nothing. Nor is it said while `answers` returns False, which gets the seconds within
        which others have to have answered.
        """
        if self.watchdog_seconds is None:
            return
        if answers(self.watchdog_seconds):
            self._send("WATCHDOG=1", wait_seconds=0)
        asyncio.get_running_loop().call_later(self.watchdog_seconds / 2, self.watch, answers)

    def _send(self, *lines: str, wait_seconds: float = _SEND_SECONDS) -> None:
        if self._path is None:
            return
        address = "\0" + self._path[1:] if self._path.startswith(_ABSTRACT) else self._path
        # Without it systemd ends the service, and says so; there is nothing better to do here.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.settimeout(wait_seconds)
            sending.sendto("\n".join(lines).encode(), address)
