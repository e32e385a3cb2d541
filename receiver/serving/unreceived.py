"""What this operating system still holds of a response: bytes that the client's system has not received."""

import asyncio
import fcntl
import struct
import sys
import termios

_SIZE = struct.Struct("i")


def unreceived_bytes(transport: asyncio.BaseTransport) -> int:
    """Return how many bytes wait in the send queue of the transport's socket: sent and not acknowledged, or not sent.

    0 where the system does not tell (only Linux does, as tcp(7) says of `SIOCOUTQ`), or where the socket is closed.
    """
    connection = transport.get_extra_info("socket")
    if connection is None or sys.platform != "linux":
        return 0
    try:
        (size,) = _SIZE.unpack(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(_SIZE.size)))
    except (OSError, ValueError):
        return 0
    return int(size)
