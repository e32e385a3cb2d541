"""A listening socket for the small servers of the command line."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from receiver.cli.failure import Failure, Status


@contextmanager
def listen(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """Listen, and give the socket and its URL; whoever connects from now on will be served."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        message = f"cannot listen on {host} port {port} ({error.strerror}); choose another --port"
        raise Failure(Status.UNREACHABLE, message) from None
    # A socket made here names no protocol, and asyncio sets this only for those that name TCP.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listening:
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        yield listening, f"http://{shown}:{listening.getsockname()[1]}"
