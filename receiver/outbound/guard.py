"""The address guard: deliveries reach only public addresses, and those that the operator allows (SSRF protection).

A subscriber chooses the URL that Ringback posts to. Without a guard it could name a database, a router or a cloud's
metadata service that is reachable from Ringback and not from the subscriber.

Why a check at registration is not enough: a host name can resolve to a public address while `check` asks, and to a
private one a second later, when a delivery connects (DNS rebinding). So every delivery is checked again, and on the
addresses that the connection uses: each new connection asks the guard's own resolver, which checks each address that
the name resolves to, and is made to one of just these, without a second lookup (`receiver.http_client.dialer`). A
literal address is not resolved, so it is checked by `check_literal`, before the request. The URL is parsed by
`target_url`, as for the request, so that the guard and the connection cannot read one URL in two ways. Redirects are
not followed.
"""

import asyncio
import re
import socket
from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from msgspec import Struct
from yarl import URL

from receiver.errors import BadRequest, SettingsError
from receiver.lookups.names import NameResolver, ResolvedName
from receiver.lookups.resolver import LONGEST_LOOKUP, NameLookups
from receiver.outbound.target_url import authority_of, target_url
from receiver.settings import Settings
from receiver.telemetry.log import get_logger

log = get_logger("outbound.guard")

LONGEST_URL = 2048
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_LONGEST_NAME = 253
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class TargetForbidden(OSError):
    """A target that the guard does not allow; the text is the reason, for a person.

    An OSError, as what else a resolver raises: it becomes the `cause` of a `NameUnresolved`.
    """


class _AddressKind(IntEnum):
    """What kind of network an address is in, the least dangerous first."""

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
# Forbidden even with RINGBACK_ALLOW_PRIVATE_TARGETS: IANA's special-purpose registries, and where clouds serve
# credentials.
_FORBIDDEN = _networks(
    "0.0.0.0/8",
    "100.100.100.200/32",  # Alibaba's metadata service
    "168.63.129.16/32",  # Azure's wire server, although the address is a public one
    "169.254.0.0/16",  # link-local, and most clouds' metadata services
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
    "fd00:ec2::/32",  # Amazon's metadata, DNS and time services
    "fd20:ce::254/128",  # Google's metadata service
)


class _Target(Struct, frozen=True):
    """A parsed URL; `host` as it is connected to, `address` if the host is a literal address."""

    scheme: str
    host: str
    port: int
    address: Address | None


class AddressGuard:
    """Allows https to public addresses, and in addition what the operator allows.

    `hosts` are allowed names (lower-case, IDNA, no trailing dot) and `networks` allowed addresses; both also by plain
    http. With `allow_private` every private or loopback address is allowed too, also by plain http. `inner` is the
    resolver that looks names up; it is closed with the guard.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        hosts: Iterable[str] = (),
        networks: Iterable[Network] = (),
        inner: NameResolver | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._hosts = frozenset(hosts)
        self._networks = tuple(networks)
        self._inner = inner or NameLookups("subscribers")
        self._check_url_cached = lru_cache(maxsize=1024)(self._check_url)  # no lookup in it: its result never changes

    @classmethod
    def from_settings(cls, settings: Settings, *, inner: NameResolver | None = None) -> "AddressGuard":
        """Return the guard that `RINGBACK_ALLOW_PRIVATE_TARGETS` and `RINGBACK_ALLOWED_TARGETS` describe.

        Raises `SettingsError` for an allowed target that is not a network, an address or a name.
        """
        hosts, networks = set(), list(settings.allowed_networks)
        for target in settings.allowed_hosts:
            try:
                networks.append(ip_network(target.strip("[]")))
            except ValueError:
                hosts.add(_allowed_name(target))
        return cls(allow_private=settings.allow_private_targets, hosts=hosts, networks=networks, inner=inner)

    async def aclose(self) -> None:
        """Close the resolver that looks names up."""
        await self._inner.close()

    async def check(self, url: str) -> None:
        """Check a URL that is being registered, including the addresses that its name resolves to.

        Raises `BadRequest` (`invalid_endpoint_url`, param `endpoint_url`) that names the rule which it breaks.
        """
        try:
            target = self._check_url(url)
            if target.address is None:
                async with asyncio.timeout(LONGEST_LOOKUP):
                    await self.resolve(target.scheme, target.host, target.port)
        except TargetForbidden as forbidden:
            raise _refused(str(forbidden)) from None
        except OSError as error:  # includes TimeoutError
            # Outside it is one plain sentence: the reason may be about this machine's DNS servers.
            reason = str(error) or f"not resolved in {LONGEST_LOOKUP:g} s"
            log.warning("host name of a webhook not resolved", host=target.host, reason=reason)
            raise _refused("the host name does not resolve: check its spelling and its DNS records") from None

    def check_literal(self, url: str) -> None:
        """Check all of a URL except the addresses of its name, which the resolver checks.

        Raises `TargetForbidden`.
        """
        self._check_url_cached(url)

    def resolver(self, scheme: str = "https") -> NameResolver:
        """Return a resolver that refuses a name if any of its addresses is forbidden.

        A resolver is not told the scheme, so there is one for each scheme.
        """
        return _GuardedResolver(self, scheme)

    async def resolve(
        self, scheme: str, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolvedName]:
        """Resolve a name and check its addresses. Raises `TargetForbidden`, or OSError if it has none."""
        try:
            answers = await self._inner.resolve(host, port, family)
        except UnicodeError:  # from Python's own idna codec
            answers = []
        if not answers:
            raise OSError("the host name does not resolve")
        for answer in answers:
            self._check_address(scheme, host, ip_address(answer["host"]))
        return answers

    def _check_url(self, url: str) -> _Target:
        target = _parse(url)
        if target.address is not None:
            self._check_address(target.scheme, target.host, target.address)
        elif not (self._networks or self._may_be_plain(target.scheme, target.host)):
            raise TargetForbidden("the URL must start with https://")
        return target

    def _check_address(self, scheme: str, host: str, address: Address) -> None:
        if self._is_allowed(host) or self._is_in_allowed_network(address):
            return
        if not self._may_be_plain(scheme, host):
            raise TargetForbidden("the URL must start with https://")
        kind = _kind_of(address)
        if self._allow_private and kind is _AddressKind.FORBIDDEN:
            raise TargetForbidden(f"{address} is neither public nor private")
        if kind is not _AddressKind.PUBLIC and not self._allow_private:
            raise TargetForbidden(f"{address} is not public")

    def _may_be_plain(self, scheme: str, host: str) -> bool:
        return scheme == "https" or self._allow_private or self._is_allowed(host)

    def _is_allowed(self, host: str) -> bool:
        return host.removesuffix(".") in self._hosts

    def _is_in_allowed_network(self, address: Address) -> bool:
        return self._is_listed(address) or all(self._is_listed(inner) for inner in _unwrapped(address))

    def _is_listed(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


class _GuardedResolver:
    def __init__(self, guard: AddressGuard, scheme: str) -> None:
        self._guard = guard
        self._scheme = scheme

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolvedName]:
        return await self._guard.resolve(self._scheme, host, port, family)

    async def close(self) -> None:
        """Do nothing: the guard holds no connection."""


def _parse(url: str) -> _Target:
    """Parse a URL as the sender does. Raises `TargetForbidden` for one that parsers could read in two ways."""
    if len(url) > LONGEST_URL:
        raise TargetForbidden(f"the URL may have at most {LONGEST_URL} characters")
    if not url.isprintable() or " " in url or "\\" in url:
        raise TargetForbidden("the URL may not contain white space, control characters or backslashes")
    authority = authority_of(url)
    if authority is None:
        raise TargetForbidden("the URL must start with https:// and name a host")
    if "@" in authority:
        raise TargetForbidden("the URL may not contain a user name or password")
    try:
        parts = target_url(url)
        host, port = parts.raw_host, parts.port
    except ValueError:
        raise TargetForbidden("the URL's host or port is not valid") from None
    if not host or not port:
        raise TargetForbidden("the URL's host or port is not valid")
    return _Target(parts.scheme, host, port, _literal(host))


def _literal(host: str) -> Address | None:
    """Return the address that `host` is written as, None for a name. Raises `TargetForbidden`.

    Unusual spellings of addresses (`127.1`, `0x7f.1`, `0177.0.0.1`, `2130706433`) are refused whatever they mean, for
    parsers disagree on them. The rule is that of the WHATWG URL standard: a last label that is a number.
    """
    if "%" in host:
        raise TargetForbidden("the URL's host may not have a zone or percent signs")
    try:
        return ip_address(host)
    except ValueError:
        pass
    if len(host) > _LONGEST_NAME or _NAME.fullmatch(host) is None:
        raise TargetForbidden("the URL's host is not a valid name")
    if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        raise TargetForbidden("the URL's host must be a name, or an address in its usual form")
    return None


def _kind_of(address: Address) -> _AddressKind:
    return max(map(_kind_of_one, _unwrapped(address)))


def _kind_of_one(address: Address) -> _AddressKind:
    if any(address in network for network in _FORBIDDEN):
        return _AddressKind.FORBIDDEN
    if any(address in network for network in _PRIVATE):
        return _AddressKind.PRIVATE
    routed = address.version == 4 or address in _GLOBAL_UNICAST_6
    return _AddressKind.PUBLIC if routed and address.is_global else _AddressKind.FORBIDDEN


def _unwrapped(address: Address) -> tuple[Address, ...]:
    """Return the IPv4 addresses to which packets for an IPv6 address are forwarded, or the address itself."""
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
        raise SettingsError(f"RINGBACK_ALLOWED_TARGETS: {target} is not a network, an address or a host name") from None
    return name.removesuffix(".")


def _refused(reason: str) -> BadRequest:
    return BadRequest(reason, code="invalid_endpoint_url", param="endpoint_url")
