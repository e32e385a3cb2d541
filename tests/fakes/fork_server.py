"""`ringback` processes that start in milliseconds, forked from a process that has imported everything.

Importing takes more CPU time than everything that a service does in a test, and one test may start several services,
or run several commands.
`python -m tests.fakes.fork_server FD` is the process that forks; it exits when the process at the other end of the
socket FD does.
"""

import asyncio
import gc
import importlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from tests.fakes.loopback import allow_loopback_only

_IMPORTED = (
    *("tests.fakes.crash_points", "receiver.app", "receiver.cli.commands", "receiver.storage.schema"),
    *("receiver.cli.service", "receiver.serving.process", "receiver.serving.start", "rich.console", "rich.table"),
    *("httpcore", "certifi", "encodings.idna", "typer.rich_utils"),
)
_ROOT = Path(__file__).resolve().parents[2]
_ORDER_BYTES = 65_536


class Child:
    """A process started by the fork server.

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
    """Starts processes through the forking process. An order is a JSON document with four file descriptors.

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
        with Path(os.devnull).open("rb") as nothing, log.open("ab") as output:
            streams = (nothing.fileno(), output.fileno(), output.fileno())
            return await self.run(*arguments, folder=folder, environment=environment, streams=streams, crash=crash)

    async def run(
        self,
        *arguments: str,
        folder: Path,
        environment: Mapping[str, str],
        streams: tuple[int, int, int],
        crash: str | None = None,
    ) -> Child:
        """The same, with these files for its standard input, output and error."""
        status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = json.dumps([arguments, str(folder), dict(environment), crash]).encode()
        with theirs:
            socket.send_fds(self._orders, [order], [theirs.fileno(), *streams])
        status.setblocking(False)
        return Child(int(await asyncio.get_running_loop().sock_recv(status, 64)), status)

    def close(self) -> None:
        """End the forking process. What it started goes on: the tests that started them kill them."""
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
    gc.collect()
    gc.freeze()  # or a collection in a child would copy all pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that its own children are reaped without a wait
    orders = socket.socket(fileno=int(sys.argv[1]))
    while True:
        order, files, _, _ = socket.recv_fds(orders, _ORDER_BYTES, 4)
        if not order:
            return
        if os.fork() == 0:
            orders.close()
            _watch(json.loads(order), *files)
        for file in files:
            os.close(file)


def _given_paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _watch(order: Sequence[Any], status: int, *streams: int) -> NoReturn:
    """Start the process; write its pid to the socket `status`, and its exit status when it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(status)
        _run(*order, streams=streams)
    for stream in streams:
        os.close(stream)
    os.write(status, str(pid).encode())
    _, wait_status = os.waitpid(pid, 0)
    os.write(status, str(os.waitstatus_to_exitcode(wait_status)).encode())
    os._exit(0)


def _run(
    arguments: list[str], folder: str, environment: dict[str, str], crash: str | None, *, streams: Sequence[int]
) -> NoReturn:
    from receiver.cli import main as ringback
    from tests.fakes.crash_points import POINTS
    from tests.fakes.stepped_clock import install

    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    _set_standard_streams(streams)
    install(environment)
    for point in crash.split(",") if crash is not None else ():
        POINTS[point]()
    sys.argv = ["ringback", *arguments]
    ringback()
    sys.exit()


def _set_standard_streams(files: Sequence[int]) -> None:
    """Make these files standard input, output and error, as they are at the start of a process."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    # Python's own have found out before the fork whether they are a terminal.
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), sys.stdin.encoding, sys.stdin.errors)
    sys.stdout = _writer(1, sys.stdout)
    sys.stderr = _writer(2, sys.stderr, line_buffering=True)


def _writer(file: int, like: TextIO, *, line_buffering: bool = False) -> io.TextIOWrapper:
    buffer = io.BufferedWriter(io.FileIO(file, "w", closefd=False))
    return io.TextIOWrapper(buffer, like.encoding, like.errors, line_buffering=line_buffering)


if __name__ == "__main__":
    main()
