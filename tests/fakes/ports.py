"""Free loopback ports for processes that bind a port themselves; no other process takes a port in between.

The ports are neither those that the system assigns to outgoing connections (on Linux from 32768) nor those that
`ringback demo` uses, and each pytest-xdist worker has its own share of them. This process keeps each port bound, so
that another test run on the same machine does not take it while no server of this one listens there. A server in this
process does not need them: it binds its socket first and keeps it.
"""

import os
import random
import socket
from collections.abc import Iterator

_PORTS = range(30_000, 32_768)


def free_port() -> int:
    """Return a port on which no process listens; never the same port twice. Raises RuntimeError if none is left."""
    for port in _untried:
        kept = socket.socket()
        try:
            kept.bind(("127.0.0.1", port))
        except OSError:
            kept.close()
            continue
        # Set after the bind, so that the bind fails beside any other socket, and a server can still listen here.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _kept.append(kept)
        return port
    raise RuntimeError("no free port is left: every port was returned before or is in use")


def _share() -> Iterator[int]:
    """Yield each of this worker's ports once, from a random start: another test run may use this machine too."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = _PORTS[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    start = random.SystemRandom().randrange(len(ports))
    yield from (*ports[start:], *ports[:start])


_untried = _share()
_kept: list[socket.socket] = []
