"""Keeps this process, and what it forks, from connecting to any address that is not on loopback.

Some tests register public addresses with a service that allows them. What must look public is never called: neither
by a mistake in a test nor by one in the service. Nor is a DNS server asked, except those that a test runs itself: every
name but those of this machine fails.
"""

import contextlib
import errno
import ipaddress
import socket
import sys
from typing import Any
from unittest.mock import patch

_NO_DNS_SERVER = "127.0.0.1:9"


def allow_loopback_only() -> None:
    """From now on make every other connect fail with an `OSError`. It cannot be undone: audit hooks stay."""
    sys.addaudithook(refuse_connect)
    sys.addaudithook(refuse_lookup)
    with contextlib.suppress(ImportError):  # clients of others run in an environment without it
        _ask_no_dns_server()


def _ask_no_dns_server() -> None:
    """Let aiodns ask no server of this machine's settings: the sockets of c-ares raise no audit event."""
    import aiodns

    make = aiodns.DNSResolver.__init__

    def make_for_loopback(self: aiodns.DNSResolver, nameservers: Any = None, *args: Any, **options: Any) -> None:
        make(self, nameservers or [_NO_DNS_SERVER], *args, **options)

    patch.object(aiodns.DNSResolver, "__init__", make_for_loopback).start()


def refuse_connect(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise `OSError` if an audit event is a connect to an internet address that is not on loopback."""
    if event != "socket.connect":
        return
    connecting, address = arguments
    if connecting.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
        raise OSError(errno.ENETUNREACH, f"a test may not connect to {address[0]}: only to loopback")


def refuse_lookup(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise `OSError` if an audit event is a look-up of a name that is not this machine's: it asks another machine."""
    if event != "socket.getaddrinfo":
        return
    host = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
    if host and not _is_address(host) and host not in ("localhost", socket.gethostname()):
        raise socket.gaierror(socket.EAI_NONAME, f"a test may not look {host} up: only names of this machine")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
