"""The bounds on connections and on what arrives on them, from the settings and from what this machine allows."""

import contextlib
import resource
from typing import Self

from msgspec import Struct, field

from receiver.body_budget import default_body_bytes
from receiver.settings import Settings

_FILES = 65_536
_MOST_CONNECTIONS = 10_000
_OTHER_FILES = 1_280
"""Descriptors that are kept for the rest: connections to subscribers and providers, the database, files."""


def raise_file_limit() -> None:
    """Raise this process's limit of open files, and so of connections, as far as the hard limit allows.

    The usual soft limit of 1,024 exists for programs that call `select`, which this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # the present limit will do
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def default_connections() -> int:
    """Return how many connections this process may have: such a number that descriptors are left for the rest."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(16, min(_MOST_CONNECTIONS, soft - min(_OTHER_FILES, soft // 2)))


class ConnectionLimits(Struct, frozen=True):
    """Bounds of one process, named as the settings that they come from. Times are in seconds, sizes in bytes.

    The `least_rate`, in bytes a second, is what a body must arrive at on average once `body_seconds` are over, and what
    a client must read at while its response waits to be sent. `trusted_proxies` are addresses, comma-separated.
    """

    max_head_bytes: int = 65_536
    max_head_fields: int = 100
    first_byte_seconds: float = 30
    headers_seconds: float = 10
    body_seconds: float = 30
    unread_seconds: float = 30
    keepalive_seconds: float = 135
    least_rate: float = 1000
    max_connections: int = field(default_factory=default_connections)
    max_connections_per_address: int = 1000
    bodies_in_flight_bytes: int = field(default_factory=default_body_bytes)
    trusted_proxies: str = "127.0.0.1,unix"

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the bounds that the settings name. The limit of open files should have been raised before."""
        named = {name: getattr(settings, name) for name in cls.__struct_fields__}
        return cls(**{name: value for name, value in named.items() if value is not None})

    @property
    def shortest_seconds(self) -> float:
        """The shortest of the times."""
        return min(
            self.first_byte_seconds,
            self.headers_seconds,
            self.body_seconds,
            self.unread_seconds,
            self.keepalive_seconds,
        )
