"""A listening socket for a command that serves."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from receiver.cli.failure import Failure, Status


@contextmanager
def listen(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """Listen until the context ends; yield the socket and its URL.

    Connections are accepted by the kernel from the start: a client that connects before the server runs is served.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        message = f"cannot listen on {host} port {port} ({error.strerror}); choose another --port"
        raise Failure(Status.UNREACHABLE, message) from None
    # asyncio sets this itself only on sockets whose protocol is given as TCP; for this one it is 0, the default.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listening:
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        yield listening, f"http://{shown}:{listening.getsockname()[1]}"
