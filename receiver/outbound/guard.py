"""The address guard: no subscriber's URL reaches an address that it may not.

A URL is judged when it is registered, by `check`, and again at each delivery: literal addresses by
`check_literal`, names by the resolver, which judges the very addresses that are then connected to. So a name
that changes its mind between the two (DNS rebinding) gains nothing.
"""

import asyncio
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL  # aiohttp's own reader of URLs: what is judged is what is connected to

from receiver.errors import BadRequest, SettingsError
from receiver.settings import Settings

LONGEST_URL = 2048
_LOOKUP_SECONDS = 5.0
_START = re.compile(r"https?://([^/?#]+)", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_LONGEST_NAME = 253
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class TargetForbidden(OSError):
    """A target that the guard does not let through; the text says why, for a person.

    An OSError because that is what aiohttp expects of a resolver: it comes out as the `os_error` of a
    `ClientConnectorDNSError`.
    """


class _Reach(IntEnum):
    """How far an address reaches, the least dangerous first."""

    PUBLIC = 0
    PRIVATE = 1
    FORBIDDEN = 2


def _networks(*networks: str) -> tuple[Network, ...]:
    return tuple(ip_network(network) for network in networks)


_GLOBAL_UNICAST_6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_PRIVATE = _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",  # carrier-grade NAT
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",  # benchmarks
    "::1/128",
    "fc00::/7",
)
# What nobody means by "private": the IANA special-purpose registries, and where clouds serve credentials.
_FORBIDDEN = _networks(
    "0.0.0.0/8",
    "100.100.100.200/32",  # Alibaba's metadata
    "168.63.129.16/32",  # Azure's wire server, in spite of its public address
    "169.254.0.0/16",  # link-local, and most clouds' metadata
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",  # 6to4 relays
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "2001::/23",
    "2001:db8::/32",
    "3fff::/20",
    "fd00:ec2::/32",  # Amazon's metadata, names and time
    "fd20:ce::254/128",  # Google's metadata
)


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a URL leads; `host` as aiohttp connects to it, `address` when it is a literal one."""

    scheme: str
    host: str
    port: int
    address: Address | None


class AddressGuard:
    """Lets through https to public addresses, and what the operator allowed besides.

    `hosts` are names (lower-case, IDNA, no trailing dot) and `networks` what they stand in; both may be
    plain http. With `allow_private`, so may every private or loopback address. `inner` resolves names.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        hosts: Iterable[str] = (),
        networks: Iterable[Network] = (),
        inner: AbstractResolver | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._hosts = frozenset(hosts)
        self._networks = tuple(networks)
        self._inner = inner
        self._admitted = lru_cache(maxsize=1024)(self._admit)  # what a URL itself says never changes

    @classmethod
    def from_settings(cls, settings: Settings, *, inner: AbstractResolver | None = None) -> "AddressGuard":
        """Return the guard that `RINGBACK_ALLOW_PRIVATE_TARGETS` and `RINGBACK_ALLOWED_TARGETS` ask for.

        Raises `SettingsError` for an allowed target that is neither a network, an address nor a name.
        """
        hosts, networks = set(), list(settings.allowed_networks)
        for target in settings.allowed_hosts:
            try:
                networks.append(ip_network(target.strip("[]")))
            except ValueError:
                hosts.add(_allowed_name(target))
        return cls(allow_private=settings.allow_private_targets, hosts=hosts, networks=networks, inner=inner)

    async def check(self, url: str) -> None:
        """Judge a URL that somebody registers, its name's addresses included.

        Raises `BadRequest` (`invalid_endpoint_url`, param `endpoint_url`) that says which rule it breaks.
        """
        try:
            target = self._admit(url)
            if target.address is None:
                async with asyncio.timeout(_LOOKUP_SECONDS):
                    await self.resolve(target.scheme, target.host, target.port)
        except TargetForbidden as forbidden:
            raise _refused(str(forbidden)) from None
        except OSError:  # TimeoutError is one too
            raise _refused("the host name does not resolve") from None

    def check_literal(self, url: str) -> None:
        """Judge all of a URL but the addresses of its name: for aiohttp resolves no literal address.

        Raises `TargetForbidden`.
        """
        self._admitted(url)

    def resolver(self, scheme: str = "https") -> AbstractResolver:
        """Return a resolver for aiohttp that refuses a name with any forbidden address among its own.

        aiohttp does not tell a resolver the scheme, so each resolver serves one.
        """
        return _GuardedResolver(self, scheme)

    async def resolve(
        self, scheme: str, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve a name and judge its addresses. Raises `TargetForbidden`, or OSError when it has none."""
        try:
            answers = await (self._inner or ThreadedResolver()).resolve(host, port, family)
        except UnicodeError:  # from Python's own idna codec
            answers = []
        if not answers:
            raise OSError("the host name does not resolve")
        for answer in answers:
            self._judge(scheme, host, ip_address(answer["host"]))
        return answers

    def _admit(self, url: str) -> _Target:
        target = _read(url)
        if target.address is not None:
            self._judge(target.scheme, target.host, target.address)
        elif not (self._networks or self._may_be_plain(target.scheme, target.host)):
            raise TargetForbidden("the URL must start with https://")
        return target

    def _judge(self, scheme: str, host: str, address: Address) -> None:
        if self._is_allowed(host) or self._stands_in_allowed_network(address):
            return
        if not self._may_be_plain(scheme, host):
            raise TargetForbidden("the URL must start with https://")
        reach = _reach(address)
        if self._allow_private and reach is _Reach.FORBIDDEN:
            raise TargetForbidden(f"{address} is neither public nor private")
        if reach is not _Reach.PUBLIC and not self._allow_private:
            raise TargetForbidden(f"{address} is not public")

    def _may_be_plain(self, scheme: str, host: str) -> bool:
        return scheme == "https" or self._allow_private or self._is_allowed(host)

    def _is_allowed(self, host: str) -> bool:
        return host.removesuffix(".") in self._hosts

    def _stands_in_allowed_network(self, address: Address) -> bool:
        return self._is_listed(address) or all(self._is_listed(inner) for inner in _unwrapped(address))

    def _is_listed(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


class _GuardedResolver(AbstractResolver):
    def __init__(self, guard: AddressGuard, scheme: str) -> None:
        self._guard = guard
        self._scheme = scheme

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return await self._guard.resolve(self._scheme, host, port, family)

    async def close(self) -> None:
        """Close nothing: the guard holds no connection."""


def _read(url: str) -> _Target:
    """Read a URL as aiohttp will. Raises `TargetForbidden` for one that could be read in two ways."""
    if len(url) > LONGEST_URL:
        raise TargetForbidden(f"the URL is longer than {LONGEST_URL} characters")
    if not url.isprintable() or " " in url or "\\" in url:
        raise TargetForbidden("the URL must hold no white space, control characters or backslashes")
    start = _START.match(url)
    if start is None:
        raise TargetForbidden("the URL must start with https:// and name a host")
    if "@" in start[1]:
        raise TargetForbidden("the URL must hold no user name and no password")
    try:
        parts = URL(url)
        host, port = parts.raw_host, parts.port
    except ValueError:
        raise TargetForbidden("the URL's host or port is not valid") from None
    if not host or not port:
        raise TargetForbidden("the URL's host or port is not valid")
    return _Target(parts.scheme, host, port, _literal(host))


def _literal(host: str) -> Address | None:
    """Return the address that `host` spells out, None for a name.

    Odd spellings (`127.1`, `0x7f.1`, `0177.0.0.1`, `2130706433`) are refused whatever they mean: whether
    they are an address depends on who reads them. The rule is WHATWG's: a last label that is a number.
    """
    if "%" in host:
        raise TargetForbidden("the URL's host must have no zone and no percent signs")
    try:
        return ip_address(host)
    except ValueError:
        pass
    if len(host) > _LONGEST_NAME or _NAME.fullmatch(host) is None:
        raise TargetForbidden("the URL's host is not a valid name")
    if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        raise TargetForbidden("the URL's host must be a name, or an address in its usual form")
    return None


def _reach(address: Address) -> _Reach:
    return max(map(_reach_of_one, _unwrapped(address)))


def _reach_of_one(address: Address) -> _Reach:
    if any(address in network for network in _FORBIDDEN):
        return _Reach.FORBIDDEN
    if any(address in network for network in _PRIVATE):
        return _Reach.PRIVATE
    routed = address.version == 4 or address in _GLOBAL_UNICAST_6
    return _Reach.PUBLIC if routed and address.is_global else _Reach.FORBIDDEN


def _unwrapped(address: Address) -> tuple[Address, ...]:
    """Return the IPv4 addresses that an IPv6 address carries packets to, or the address itself."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.teredo is not None:
        return address.teredo
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    return (address.ipv4_mapped or address.sixtofour or address,)


def _allowed_name(target: str) -> str:
    try:
        name = URL.build(scheme="http", host=target).raw_host or ""
        _literal(name)
    except (ValueError, TargetForbidden):
        raise SettingsError(f"RINGBACK_ALLOWED_TARGETS: {target} is no network, address or host name") from None
    return name.removesuffix(".")


def _refused(reason: str) -> BadRequest:
    return BadRequest(reason, code="invalid_endpoint_url", param="endpoint_url")
