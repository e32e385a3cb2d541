"""Ports of loopback for processes that bind one themselves: nobody else takes them in between.

They are not those that the system hands out to outgoing connections (on Linux from 32768), nor those from which
`ringback demo` takes its own; and each of pytest-xdist's workers has a share of its own. What serves in this process
needs none of this: it binds its socket first and keeps it.
"""

import os
import random
import socket
from collections.abc import Iterator

_PORTS = range(30_000, 32_768)


def free_port() -> int:
    """Return a port that nobody listens on now, never the same twice."""
    for port in _untried:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError("every port was given out")


def _share() -> Iterator[int]:
    """Give this worker's ports once each; from the middle, for another suite may run on this machine."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = _PORTS[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    middle = random.SystemRandom().randrange(len(ports))
    yield from (*ports[middle:], *ports[:middle])


_untried = _share()
