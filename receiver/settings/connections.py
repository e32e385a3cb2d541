"""Of the server: the proxy before it, and the bounds on connections and requests."""

from typing import Annotated

from pydantic import Field, field_validator

from receiver.setting_values import read_proxies
from receiver.settings.group import Seconds, SettingsGroup


class ConnectionSettings(SettingsGroup):
    """Of the server: the proxy before it, and the bounds on connections and requests."""

    trusted_proxies: str = "127.0.0.1"
    """Addresses and networks, comma-separated, whose `X-Forwarded-*` headers are trusted.

    `unix` stands for a proxy that connects to a Unix socket, `*` for everybody. By default a proxy on this machine.
    """
    root_path: str = ""
    """The path prefix under which a reverse proxy serves the service, such as `/ringback`. None by default."""
    max_head_bytes: Annotated[int, Field(ge=8192)] = 65_536
    """The most bytes of a request before its body: request line, URL and headers; more get 431, a longer URL 414.

    Also of what is not payload in a body in chunks. 64 KiB: as much as common proxies let through.
    """
    max_head_fields: Annotated[int, Field(ge=16)] = 100
    """The most header fields of a request; more get 431."""
    first_byte_seconds: Seconds = 30
    """How long a connection may stay without a first request, in seconds."""
    headers_seconds: Seconds = 10
    """The longest time from the first byte of a request to the end of its headers, in seconds; then 408."""
    body_seconds: Seconds = 30
    """How long a body may take, in seconds, and for as long as it keeps to the least rate; then 408.

    While the service itself is not ready to take the body, the time does not count. A body that waits for room
    (`RINGBACK_BODIES_IN_FLIGHT_BYTES`) gets 503 after this time.
    """
    unread_seconds: Seconds = 30
    """A client that reads less of a waiting response in this many seconds than the least rate asks is disconnected."""
    least_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1000
    """Bytes a second, on average: what a slow body or a slow reader must keep to."""
    keepalive_seconds: Seconds = 135
    """How long a connection stays open without a request, in seconds.

    Longer than common proxies keep theirs (60 to 120 s), so that the proxy is the one that closes it: a request that
    is sent while the service closes the connection would be lost.
    """
    max_connections: Annotated[int, Field(ge=1)] | None = None
    """The most connections of clients to one process; a further one gets 503.

    By default 10,000, or what the limit of open files leaves for them.
    """
    max_connections_per_address: Annotated[int, Field(ge=1)] = 1000
    """The most connections to one process from one address (64 bits of IPv6) that is not a trusted proxy."""
    bodies_in_flight_bytes: Annotated[int, Field(ge=1_048_576)] | None = None
    """The most bytes of large request bodies that one process holds at a time; a quarter is for inbound webhooks.

    A body that finds no room waits. By default 256 MiB, or an eighth of the container's memory where that is less.
    Deliveries about tasks of more than 64 KiB may hold half as many besides, and answers that are being made a quarter.
    """

    @field_validator("trusted_proxies")
    @classmethod
    def _known_proxies(cls, value: str) -> str:
        return ",".join(read_proxies(value))

    @field_validator("root_path")
    @classmethod
    def _clean_path(cls, value: str) -> str:
        if value and not value.startswith("/"):
            raise ValueError("must start with /")
        return value.rstrip("/")
