"""The demo's processes: started with a clean environment, killed and stopped by their ids, never left behind."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_GRACE_SECONDS = 5.0
_PORTS = range(20000, 30000)
"""Below the ports that systems hand out to outgoing connections: so the service finds its own free again."""
_LAST_LINES = 5


class Child:
    """One process that runs a command of Ringback; what it prints goes to `log`."""

    def __init__(self, name: str, arguments: Sequence[str], *, log: Path, settings: Mapping[str, str]) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "receiver.cli", *arguments]
        self._log = log
        self._environment = {**_clean_environment(), **settings}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, given: bytes = b"") -> None:
        """Start it, in the log's folder, with `given` on its standard input."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._command,
                cwd=self._log.parent,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if self._process.stdin is not None:
            with self._process.stdin as stdin:
                stdin.write(given)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it with SIGKILL: it cannot put anything in order before."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """Return the last lines that it printed."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_LAST_LINES:])

    def ask_to_end(self) -> None:
        """Send SIGTERM, if it runs."""
        if self._process is not None and self.alive:
            self._process.terminate()

    def wait_until(self, deadline: float) -> None:
        """Wait for its end; at the deadline (on the monotonic clock) kill it."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()


def stop_all(children: Iterable[Child]) -> None:
    """Stop processes: politely first, for a bounded time. Blocks, so that nothing can come in between."""
    children = list(children)
    deadline = time.monotonic() + _GRACE_SECONDS
    for child in children:
        child.ask_to_end()
    for child in children:
        child.wait_until(deadline)


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on."""
    dice = random.SystemRandom()
    found: set[int] = set()
    while len(found) < count:
        port = dice.choice(_PORTS)
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.add(port)
    return list(found)


def _clean_environment() -> dict[str, str]:
    """Return the environment without the user's own settings, and without proxies: all that is on loopback."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RINGBACK_") and not name.lower().endswith("_proxy")
    }
