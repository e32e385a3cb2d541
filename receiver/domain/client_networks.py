"""Who counts as one client where nothing but the address tells."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

UNKNOWN = "unknown"
"""All clients whose address is not known, as on a Unix socket."""


@lru_cache(maxsize=4096)
def client_network(host: str | None) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 address, which one subscriber line has.

    `host` is the client's address as the server knows it: that of a proxy, unless the proxy is trusted.
    """
    try:
        address = ip_address(host or "")
    except ValueError:
        return UNKNOWN
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"
