"""Which addresses count as one client before a key or secret tells who it is; how often a log line tells of them."""

from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

UNKNOWN = "unknown"
"""All clients whose address is not known, as on a Unix socket."""
_MOST_NETWORKS = 1_000
_MOST_LINES = 20
_MINUTE = 60.0


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


class NetworkLines:
    """Bounds the log lines about what clients do: one a minute for each network, and 20 a minute for all of them.

    Of 1,000 networks it is known when they had their last line; of others, those of long ago are forgotten.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """By network: when a line may be written again, and what happened since the last one."""
        self._lines = 0
        self._minute_end = 0.0

    def due(self, network: str, now: float) -> int:
        """Count what a network did, at `now` in seconds; return how often it did so since its last line, or 0.

        A number above 0 means that a line is to be written now.
        """
        next_at, count = self._last.pop(network, (now, 0))
        count += 1
        is_due = now >= next_at and self._has_line(now)
        self._last[network] = (now + _MINUTE, 0) if is_due else (next_at, count)
        if len(self._last) > _MOST_NETWORKS:
            self._last.popitem(last=False)
        return count if is_due else 0

    def _has_line(self, now: float) -> bool:
        if now >= self._minute_end:
            self._lines, self._minute_end = 0, now + _MINUTE
        self._lines += 1
        return self._lines <= _MOST_LINES
