"""Who is at the other end of a connection."""

import socket
from typing import Any

from receiver.setting_values import UNIX_PEER

_MAPPED = "::ffff:"
"""Before an IPv4 address that came to a socket which listens on IPv6 and IPv4."""


def peer_host(family: int, address: Any) -> str:
    """Return the address of a peer (`accept`, `getpeername`) as settings name it; "" if it has none."""
    if family == socket.AF_UNIX:
        return UNIX_PEER
    host = str(address[0]) if isinstance(address, tuple) else ""
    return host.removeprefix(_MAPPED) if "." in host else host
