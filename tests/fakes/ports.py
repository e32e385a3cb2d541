"""Free loopback ports for processes that bind a port themselves; no other process takes a port in between.

The ports are neither those that the system assigns to outgoing connections (on Linux from 32768) nor those that
`ringback demo` uses, and each pytest-xdist worker has its own share of them. A server in this process does not need
them: it binds its socket first and keeps it.
"""

import os
import random
import socket
from collections.abc import Iterator

_PORTS = range(30_000, 32_768)


def free_port() -> int:
    """Return a port on which no process listens; never the same port twice. Raises RuntimeError if none is left."""
    for port in _untried:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError("no free port is left: every port was returned before or is in use")


def _share() -> Iterator[int]:
    """Yield each of this worker's ports once, from a random start: another test run may use this machine too."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = _PORTS[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    start = random.SystemRandom().randrange(len(ports))
    yield from (*ports[start:], *ports[:start])


_untried = _share()
