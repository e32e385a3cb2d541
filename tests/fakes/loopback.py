"""Keeps this process, and what it forks, from connecting to any address that is not on loopback.

Some tests register public addresses with a service that allows them. What must look public is never called: neither
by a mistake in a test nor by one in the service.
"""

import errno
import ipaddress
import socket
import sys
from typing import Any


def allow_loopback_only() -> None:
    """From now on make every other connect fail with an `OSError`. It cannot be undone: audit hooks stay."""
    sys.addaudithook(refuse_connect)


def refuse_connect(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise `OSError` if an audit event is a connect to an internet address that is not on loopback."""
    if event != "socket.connect":
        return
    connecting, address = arguments
    if connecting.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
        raise OSError(errno.ENETUNREACH, f"a test may not connect to {address[0]}: only to loopback")


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
