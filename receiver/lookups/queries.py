"""DNS queries through c-ares (aiodns), which reads `/etc/hosts` and `/etc/resolv.conf` as the system does.

The system's own function, `getaddrinfo`, holds a thread until it returns, which takes half a minute where DNS servers
are silent, and nothing can end it: a few names use up a pool of threads. A query of c-ares holds no thread.
"""

import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import aiodns

MOST_ADDRESSES = 64
"""Of one name. An answer with more has no honest reason, and each of them costs time to check."""
_CHANNEL_SECONDS = 5.0
"""How long a channel takes new queries. c-ares keeps answers in it, empty ones for an hour and any number of them, so
this is how long an answer is kept at most."""
_CHANNEL_QUERIES = 512
_FIRST_WAIT = 1.0
"""Seconds until a query is sent again. c-ares doubles it each time, and shortens it where the server mostly is fast."""
_TRIES = 5
_NOT_SORTED = 1 << 7
"""c-ares's ARES_AI_NOSORT: to sort, it opens a socket for each address, one name after the other."""
_NO_SUCH_NAME = frozenset({aiodns.error.ARES_ENODATA, aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_EBADNAME})

NameAddresses = list[tuple[socket.AddressFamily, str]]
"""The addresses of a name, in the order in which to try them."""


class NameNotResolved(OSError):
    """A name of which no address is known; the text is the reason, for a person.

    An OSError, as every fault of a connection. No TimeoutError, which would not say that nothing was sent.
    """


class NoSuchName(NameNotResolved):
    """A name that has no address."""


class _Channel:
    """A channel of c-ares, and how many queries use it."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._resolver = aiodns.DNSResolver(nameservers=servers or None, timeout=_FIRST_WAIT, tries=_TRIES)
        self._begun = 0
        self._under_way = 0
        self._until = time.monotonic() + _CHANNEL_SECONDS
        self.is_retired = False

    def takes_more(self) -> bool:
        """Return whether a query may still begin on it."""
        return self._begun < _CHANNEL_QUERIES and time.monotonic() < self._until

    async def addresses(self, host: str, family: int) -> NameAddresses:
        """Return the addresses of a name. Raises `aiodns.error.DNSError`."""
        self._begun += 1
        self._under_way += 1
        try:
            answer = await self._resolver.getaddrinfo(
                host, family=socket.AddressFamily(family), port=0, type=socket.SOCK_STREAM, flags=_NOT_SORTED
            )
        finally:
            self._under_way -= 1
            if self.is_retired:
                await self.close_if_unused()
        return [(socket.AddressFamily(node.family), _address(node.addr)) for node in answer.nodes[: MOST_ADDRESSES + 1]]

    async def close_if_unused(self) -> None:
        """Close it, with what c-ares still does for queries that were given up, unless a query uses it."""
        if not self._under_way:
            await self._resolver.close()


class Queries:
    """Asks the DNS servers of this machine, or these `servers` (`host:port`)."""

    def __init__(self, servers: Sequence[str] = ()) -> None:
        self._servers = servers
        self._channel: _Channel | None = None

    async def addresses(self, host: str, family: int = socket.AF_UNSPEC) -> NameAddresses:
        """Return the addresses of a name. Raises `NameNotResolved`, and `NoSuchName` if that is known."""
        try:
            found = await (await self._present_channel()).addresses(host, family)
        except aiodns.error.DNSError as error:
            if error.args and error.args[0] in _NO_SUCH_NAME:
                raise NoSuchName("the name has no address") from None
            raise NameNotResolved("its DNS servers do not answer") from None
        except UnicodeError:
            raise NoSuchName("the name is not valid") from None
        if not found:
            raise NoSuchName("the name has no address")
        if len(found) > MOST_ADDRESSES:
            raise NameNotResolved(f"the name has more than {MOST_ADDRESSES} addresses")
        return _in_order(found)

    async def aclose(self) -> None:
        """Close the sockets."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await self._retire(channel)

    async def _present_channel(self) -> _Channel:
        if self._channel is None or not self._channel.takes_more():
            former, self._channel = self._channel, _Channel(self._servers)
            if former is not None:
                await self._retire(former)
        return self._channel

    async def _retire(self, channel: _Channel) -> None:
        channel.is_retired = True
        await channel.close_if_unused()


def _address(found: tuple[Any, ...]) -> str:
    text = found[0].decode() if isinstance(found[0], bytes) else found[0]
    return f"{text}%{found[3]}" if len(found) > 3 and found[3] else str(text)


def _in_order(found: NameAddresses) -> NameAddresses:
    """Return IPv6 addresses first if this machine has a route to the first one, else last (RFC 6724, section 6)."""
    ipv6 = [each for each in found if each[0] == socket.AF_INET6]
    ipv4 = [each for each in found if each[0] == socket.AF_INET]
    if not (ipv6 and ipv4):
        return found
    return ipv6 + ipv4 if _has_route(ipv6[0][1]) else ipv4 + ipv6


def _has_route(address: str) -> bool:
    """Return whether there is a route to an IPv6 address. Nothing is sent."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return True
    return False
