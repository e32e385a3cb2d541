"""Letting no further TCP connection begin on a listening socket, while those whose handshake is under way still come.

Between the last accept and the close of a listening socket the kernel may make another connection, which the close
then resets although its client has sent a request. A packet filter on the socket drops what would begin one: such a
client tries again a second later, and is refused then, or reaches the process that listens next.
"""

import contextlib
import ctypes
import socket
import struct
import sys

_ATTACH_FILTER = 26
"""SO_ATTACH_FILTER of Linux, which Python has no name for."""
_LOAD_BYTE, _AND, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06
_FLAGS = 13
"""Where the flags are in the header of a TCP segment."""
_SYN, _ACK = 0x02, 0x10
_PROGRAM = (
    (_LOAD_BYTE, 0, 0, _FLAGS),
    (_AND, 0, 0, _SYN | _ACK),
    (_JUMP_IF_EQUAL, 0, 1, _SYN),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, 0xFFFFFFFF),
)
"""Drop a segment with SYN and without ACK, and keep every other one (classic BPF, `linux/filter.h`)."""


def refuse_handshakes(listening: socket.socket) -> bool:
    """Let no further TCP connection begin on this socket, in any process that has it; return whether that is so.

    No process can undo it, so it is for a socket that all are about to close.
    """
    if sys.platform != "linux" or listening.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    steps = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _PROGRAM))
    program = struct.pack("HP", len(_PROGRAM), ctypes.addressof(steps))
    with contextlib.suppress(OSError):  # a sandbox does not allow it
        listening.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
        return True
    return False
