"""Processes of `ringback serve` that begin at once: they are forked from one that has imported everything already.

Importing takes more of a processor than all that a service then does in a test, and a test kills several.
`python -m tests.fakes.fork_server FD` is that one; it ends when whoever asks it does.
"""

import asyncio
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

_IMPORTED = ("tests.fakes.crash_points", "receiver.app", "receiver.cli.serve", "receiver.storage.schema")
_ROOT = Path(__file__).resolve().parents[2]
_ORDER_BYTES = 65_536


class Child:
    """A running service. It is nobody's child here: what became of it is heard from the one that watches it."""

    def __init__(self, pid: int, news: socket.socket) -> None:
        self.pid = pid
        self._news = news
        self._returncode: int | None = None

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None as long as it runs."""
        if self._returncode is None:
            try:
                self._hear(self._news.recv(64))
            except BlockingIOError:
                return None
        return self._returncode

    def send_signal(self, which: int) -> None:
        """Send it a signal, if it still runs."""
        if self.returncode is None:
            os.kill(self.pid, which)

    async def wait(self) -> int:
        """Wait for its end; return the exit status."""
        while (status := self.returncode) is None:
            self._hear(await asyncio.get_running_loop().sock_recv(self._news, 64))
        return status

    def _hear(self, news: bytes) -> None:
        self._returncode = int(news)
        self._news.close()


class ForkServer:
    """Starts services."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.fork_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=_ROOT,
                start_new_session=True,  # Ctrl-C is for the tests, which end it
            )

    async def begin(
        self, *arguments: str, folder: Path, environment: Mapping[str, str], log: Path, crash: str | None
    ) -> Child:
        """Run `ringback` with these arguments in this folder, with this environment and no other."""
        news, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = json.dumps([arguments, str(folder), dict(environment), crash]).encode()
        with theirs, log.open("ab") as output:
            socket.send_fds(self._orders, [order], [theirs.fileno(), output.fileno()])
        news.setblocking(False)
        return Child(int(await asyncio.get_running_loop().sock_recv(news, 64)), news)

    def close(self) -> None:
        """End it; what it started is killed by whoever asked for it."""
        self._orders.close()
        self._process.wait(30)


_present: list[ForkServer] = []


def fork_server() -> ForkServer:
    """Return this process's fork server, which exists from the first use until `end_fork_server`."""
    if not _present:
        _present.append(ForkServer())
    return _present[0]


def end_fork_server() -> None:
    """End it, if it was used."""
    while _present:
        _present.pop().close()


def main() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a watcher ended
    orders = socket.socket(fileno=int(sys.argv[1]))
    while True:
        order, files, _, _ = socket.recv_fds(orders, _ORDER_BYTES, 2)
        if not order:
            return
        if os.fork() == 0:
            orders.close()
            _watch(json.loads(order), *files)
        for file in files:
            os.close(file)


def _watch(order: Sequence[Any], news: int, log: int) -> NoReturn:
    """Start the service, say who it is, and when it is over what became of it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(news)
        _serve(*order, log=log)
    os.close(log)
    os.write(news, str(pid).encode())
    _, status = os.waitpid(pid, 0)
    os.write(news, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _serve(arguments: list[str], folder: str, environment: dict[str, str], crash: str | None, *, log: int) -> NoReturn:
    from receiver.cli import main as ringback
    from tests.fakes.crash_points import POINTS

    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if crash is not None:
        POINTS[crash]()
    sys.argv = ["ringback", *arguments]
    ringback()
    sys.exit()


if __name__ == "__main__":
    main()
