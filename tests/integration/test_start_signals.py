"""Signals while `ringback serve` starts, and SIGHUP while one process serves."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.fakes.command import CLEAN
from tests.fakes.ports import free_port

pytestmark = pytest.mark.sqlite_only("the processes alone")

SERVE = (sys.executable, "-m", "receiver.cli", "serve")
AS_FIRST = ("unshare", "--fork", "--pid", "--mount-proc")
"""Runs a command as the process with the id 1."""
BOUND_SECONDS = 60.0


@contextmanager
def held_start(folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the service, whose start waits for a secret that never comes."""
    fifo = folder / "secret"
    os.mkfifo(fifo)
    process = subprocess.Popen(command, cwd=folder, env={**CLEAN, "RINGBACK_SECRET_KEY_FILE": str(fifo)})
    try:
        with fifo.open("wb"):  # returns when the service has opened it
            yield process
    finally:
        process.kill()
        process.wait(BOUND_SECONDS)


def service_of(process: subprocess.Popen[bytes], command: tuple[str, ...]) -> int:
    """Return the process id of the service, which may be a child of `process`."""
    if not command:
        return process.pid
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())


@pytest.mark.parametrize("before", [(), AS_FIRST], ids=["as any process", "as the first process"])
@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "with workers"])
def test_a_signal_during_the_start_ends_it_with_status_0(
    tmp_path: Path, before: tuple[str, ...], options: tuple[str, ...]
) -> None:
    if before and subprocess.run([*AS_FIRST, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a namespace of processes")
    with held_start(tmp_path, *before, *SERVE, *options) as process:
        service = service_of(process, before)
        os.kill(service, signal.SIGHUP)  # does nothing
        os.kill(service, signal.SIGTERM)
        assert process.wait(BOUND_SECONDS) == 0


def read_until(terminal: int, words: bytes) -> None:
    """Read what is printed on a terminal until it has these words. Raises `OSError` if the process ends before."""
    printed = b""
    while words not in printed:
        printed += os.read(terminal, 65_536)


def test_one_process_says_at_sighup_that_it_goes_on_and_stops_when_its_terminal_is_closed(tmp_path: Path) -> None:
    port = free_port()
    ours, its = pty.openpty()
    try:
        with os.fdopen(its, "wb", buffering=0) as terminal:
            process = subprocess.Popen(
                ["setsid", "--ctty", *SERVE, "--port", str(port)],
                cwd=tmp_path,
                env=CLEAN,
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
            )
        try:
            read_until(ours, b"service started")
            process.send_signal(signal.SIGHUP)
            read_until(ours, b"SIGHUP ignored")
            assert httpx.get(f"http://127.0.0.1:{port}/readyz").is_success
        finally:
            os.close(ours)
        process.wait(BOUND_SECONDS)  # raises if it goes on
    finally:
        process.kill()
        process.wait(BOUND_SECONDS)
