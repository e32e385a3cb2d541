"""The bench's servers, each in a process of its own."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.servers import free_port


@contextmanager
def serving(kind: str, folder: Path) -> Iterator[int]:
    """Run one of `tests.bench.servers` on the database in `folder`; yield its port when it answers."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RINGBACK_")}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.servers", kind, str(folder), str(port)], env=environment, stderr=log
        )
    try:
        _answers(port, server)
        yield port
    finally:
        server.terminate()
        server.wait(20)


def _answers(port: int, server: "subprocess.Popen[bytes]") -> None:
    """Return when the server answers at all; a 404 is an answer."""
    deadline = time.monotonic() + 20
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("a server of the bench did not start")
