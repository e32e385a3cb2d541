"""Makes connections: only to addresses that the resolver returned, or to the literal address of a URL."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from itertools import chain, zip_longest
from typing import NamedTuple

from receiver.http_client.connection import Connection
from receiver.http_client.errors import CertificateRefused, ConnectRefused, NameUnresolved, TlsRefused
from receiver.http_client.origin import Origin
from receiver.lookups.names import NameResolver

_NEXT_ADDRESS_SECONDS = 0.25
"""How long an address may take before the next one is tried beside it (RFC 8305, section 5)."""
_MOST_AT_ONCE = 8
"""Addresses that are tried beside each other: each has a socket, and the owner of a name can give it many addresses."""
_LONGEST_TLS_CLOSE = 2.0


class _Address(NamedTuple):
    family: socket.AddressFamily
    host: str


class Dialer:
    """Makes connections to origins, whose names `resolver` looks up. With `tls` they are TLS connections."""

    def __init__(self, resolver: NameResolver, tls: Callable[[], Awaitable[ssl.SSLContext]] | None) -> None:
        self._resolver = resolver
        self._tls = tls

    async def dial(self, origin: Origin, make: Callable[[], Connection]) -> Connection:
        """Return a new connection. Raises `NotConnected`."""
        addresses = await self._addresses(origin)
        tls = None if self._tls is None else await self._tls()
        while True:
            used, connecting = await _first_connected(addresses, origin.port)
            try:
                return await _opened(connecting, origin, tls, make)
            except (TlsRefused, ConnectRefused):
                addresses.remove(used)
                if not addresses:
                    raise

    async def _addresses(self, origin: Origin) -> list[_Address]:
        literal = _literal(origin.host)
        if literal is not None:
            return [literal]
        try:
            found = await self._resolver.resolve(origin.host, origin.port, socket.AF_UNSPEC)
        except OSError as error:
            raise NameUnresolved(error) from error
        return _alternating([_Address(socket.AddressFamily(each["family"]), each["host"]) for each in found])


def _literal(host: str) -> _Address | None:
    try:
        version = ip_address(host).version
    except ValueError:
        return None
    return _Address(socket.AF_INET if version == 4 else socket.AF_INET6, host)


def _alternating(addresses: Sequence[_Address]) -> list[_Address]:
    """Return the addresses so that families take turns, the first one's first: all of one may be unreachable."""
    if not addresses:
        raise NameUnresolved(OSError("the host name does not resolve"))
    first = [each for each in addresses if each.family == addresses[0].family]
    others = [each for each in addresses if each.family != addresses[0].family]
    return [each for each in chain.from_iterable(zip_longest(first, others)) if each is not None]


async def _opened(
    connecting: socket.socket, origin: Origin, tls: ssl.SSLContext | None, make: Callable[[], Connection]
) -> Connection:
    loop = asyncio.get_running_loop()
    try:
        if tls is None:
            return (await loop.create_connection(make, sock=connecting))[1]
        _, connection = await loop.create_connection(
            make,
            sock=connecting,
            ssl=tls,
            server_hostname=origin.host.rstrip("."),  # certificates name hosts without the dot of the root
            ssl_shutdown_timeout=_LONGEST_TLS_CLOSE,
        )
    except ssl.CertificateError as error:
        raise CertificateRefused(error) from error
    except ssl.SSLError as error:
        raise TlsRefused(error) from error
    except OSError as error:
        raise ConnectRefused(error) from error
    return connection


async def _first_connected(addresses: Sequence[_Address], port: int) -> tuple[_Address, socket.socket]:
    """Return the first address that takes a connection, with its socket. Raises `ConnectRefused`."""
    if len(addresses) == 1:
        try:
            return addresses[0], await _connected(addresses[0], port)
        except OSError as error:
            raise ConnectRefused(error) from error
    return await _race(addresses, port)


async def _race(addresses: Sequence[_Address], port: int) -> tuple[_Address, socket.socket]:
    """Try one address after the other, and the next one beside those that take long; the first of many is given up."""
    waiting = iter(addresses)
    attempts: dict[asyncio.Task[socket.socket], _Address] = {}
    faults: list[OSError] = []
    try:
        while True:
            address = next(waiting, None)
            if address is not None:
                if len(attempts) == _MOST_AT_ONCE:
                    _give_up(attempts)
                attempts[asyncio.create_task(_connected(address, port))] = address
            elif not attempts:
                raise ConnectRefused(_together(faults))
            seconds = None if address is None else _NEXT_ADDRESS_SECONDS
            done, _ = await asyncio.wait(attempts, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                fault = task.exception()
                if fault is None:
                    return attempts.pop(task), task.result()
                if not isinstance(fault, OSError):
                    raise fault
                faults.append(fault)
                del attempts[task]
    finally:
        while attempts:
            _give_up(attempts)


def _give_up(attempts: dict[asyncio.Task[socket.socket], _Address]) -> None:
    """End the attempt that began first."""
    task = next(iter(attempts))
    del attempts[task]
    task.cancel()
    task.add_done_callback(_close_unused)


def _close_unused(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connected(address: _Address, port: int) -> socket.socket:
    # asyncio sends the last part of a request without delay (TCP_NODELAY) only on a socket that names its protocol.
    connecting = socket.socket(address.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        connecting.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connecting, (address.host, port))
    except RuntimeError as error:  # of uvloop, for a descriptor whose number another transport had until now
        connecting.close()
        raise OSError("the connection could not be made") from error
    except BaseException:
        connecting.close()
        raise
    return connecting


def _together(faults: Sequence[OSError]) -> OSError:
    """Return one error for all addresses: their number if it is the same for all."""
    same = len({fault.errno for fault in faults}) == 1
    return faults[0] if same else OSError("no address takes a connection")
