"""`ringback serve` processes that start in milliseconds, forked from a process that has imported everything.

Importing takes more CPU time than everything that a service does in a test, and one test may start several services.
`python -m tests.fakes.fork_server FD` is the process that forks; it exits when the process at the other end of the
socket FD does.
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

from tests.fakes.loopback import allow_loopback_only

_IMPORTED = ("tests.fakes.crash_points", "receiver.app", "receiver.cli.serve", "receiver.storage.schema")
_ROOT = Path(__file__).resolve().parents[2]
_ORDER_BYTES = 65_536


class Child:
    """A service started by the fork server.

    It is not a child of this process, which therefore cannot wait for it: the fork server's child that is its parent
    reports its exit status on the socket `status`.
    """

    def __init__(self, pid: int, status: socket.socket) -> None:
        self.pid = pid
        self._status = status
        self._returncode: int | None = None

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self._returncode is None:
            try:
                self._set_returncode(self._status.recv(64))
            except BlockingIOError:
                return None
        return self._returncode

    def send_signal(self, which: int) -> None:
        """Send it a signal if it still runs."""
        if self.returncode is None:
            os.kill(self.pid, which)

    async def wait(self) -> int:
        """Wait until it has ended; return the exit status."""
        while (returncode := self.returncode) is None:
            self._set_returncode(await asyncio.get_running_loop().sock_recv(self._status, 64))
        return returncode

    def _set_returncode(self, message: bytes) -> None:
        self._returncode = int(message)
        self._status.close()


class ForkServer:
    """Starts services through the forking process. An order is a JSON document with two file descriptors.

    `root` is the folder that the service is imported from, if it is a changed copy.
    """

    def __init__(self, root: Path = _ROOT) -> None:
        self.root = root
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.fork_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=root,  # the first place for imports
                env={**os.environ, "PYTHONPATH": os.pathsep.join((str(_ROOT), *_given_paths()))},
                start_new_session=True,  # Ctrl-C reaches the tests alone, which then end this process
            )

    async def begin(
        self, *arguments: str, folder: Path, environment: Mapping[str, str], log: Path, crash: str | None
    ) -> Child:
        """Run `ringback` with these arguments in `folder`, with `environment` and no other variables.

        Its output is appended to `log`. `crash` names crash points of `tests.fakes.crash_points`, with commas between.
        If the environment names a clock of `tests.fakes.stepped_clock`, that is its wall clock.
        """
        status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = json.dumps([arguments, str(folder), dict(environment), crash]).encode()
        with theirs, log.open("ab") as output:
            socket.send_fds(self._orders, [order], [theirs.fileno(), output.fileno()])
        status.setblocking(False)
        return Child(int(await asyncio.get_running_loop().sock_recv(status, 64)), status)

    def close(self) -> None:
        """End the forking process. Services that it started go on: the tests that started them kill them."""
        self._orders.close()
        self._process.wait(30)


_present: list[ForkServer] = []


def fork_server() -> ForkServer:
    """Return this process's fork server, which exists from the first use until `end_fork_server`."""
    if not _present:
        _present.append(ForkServer())
    return _present[0]


def end_fork_server() -> None:
    """End this process's fork server, if it was used."""
    while _present:
        _present.pop().close()


def main() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    allow_loopback_only()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that its own children are reaped without a wait
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


def _given_paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _watch(order: Sequence[Any], status: int, log: int) -> NoReturn:
    """Start the service; write its pid to the socket `status`, and its exit status when it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(status)
        _serve(*order, log=log)
    os.close(log)
    os.write(status, str(pid).encode())
    _, wait_status = os.waitpid(pid, 0)
    os.write(status, str(os.waitstatus_to_exitcode(wait_status)).encode())
    os._exit(0)


def _serve(arguments: list[str], folder: str, environment: dict[str, str], crash: str | None, *, log: int) -> NoReturn:
    from receiver.cli import main as ringback
    from tests.fakes.crash_points import POINTS
    from tests.fakes.stepped_clock import install

    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(log, 1)
    os.dup2(log, 2)
    install(environment)
    for point in crash.split(",") if crash is not None else ():
        POINTS[point]()
    sys.argv = ["ringback", *arguments]
    ringback()
    sys.exit()


if __name__ == "__main__":
    main()
