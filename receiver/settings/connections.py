"""Of the server: the proxy before it, and the bounds on connections and requests."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from receiver.setting_values import MAX_SECONDS, read_proxies
from receiver.settings.group import Seconds, SecondsOrZero, SettingsGroup

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
"""What no client and no proxy writes in another way: nothing in it is percent-encoded."""
_MODE = re.compile(r"0?[0-7]{3}")


class ConnectionSettings(SettingsGroup):
    """Of the server: the proxy before it, and the bounds on connections and requests."""

    host: str | None = None
    """The address to listen on, unless `--host` names one. By default 127.0.0.1; `::` is every one of IPv6 and IPv4."""
    port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """The port to listen on, unless `--port` names one. By default 8080."""
    uds: Path | None = None
    """The path of a Unix socket to listen at instead."""
    uds_mode: str = "660"
    """The permissions of that socket, in octal: who may connect."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that serve, unless `--workers` says it; more than 1 need PostgreSQL."""
    trusted_proxies: str = "127.0.0.1,unix"
    """Addresses and networks, comma-separated, whose `X-Forwarded-*` and `X-Request-Id` headers are trusted.

    `unix` is a Unix socket. By default a proxy on this machine: a Unix socket is guarded by its permissions. `*`,
    alone, trusts all.
    """
    root_path: str = ""
    """The path prefix under which a reverse proxy serves the service, such as `/ringback`. None by default.

    The proxy may strip it or not. One that begins like a path of the service (`/api`, `/hooks`, `/v1`) it must strip.
    """
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

    stop_seconds: Seconds = 25
    """The longest time of a stop, in seconds, from the signal to the end of the process, the lame duck included.

    By default a little less than the 30 s that Kubernetes gives. What is under way at the end goes on at the next start
    or in another process.
    """
    lame_duck_seconds: SecondsOrZero = 0
    """How long after SIGTERM everything is still served, in seconds, while `/readyz` says 503.

    For load balancers that need some time to see it. A second signal, or Ctrl-C, goes on with the stop at once.
    """

    @field_validator("lame_duck_seconds")
    @classmethod
    def _within_stop(cls, value: float, info: ValidationInfo) -> float:
        if value >= info.data.get("stop_seconds", MAX_SECONDS):
            raise ValueError("must be less than RINGBACK_STOP_SECONDS, of which it is a part")
        return value

    @field_validator("uds")
    @classmethod
    def _one_place(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and (info.data.get("host") or info.data.get("port") is not None):
            raise ValueError("excludes RINGBACK_HOST and RINGBACK_PORT; remove one of them")
        return value

    @field_validator("uds_mode")
    @classmethod
    def _octal(cls, value: str) -> str:
        if not _MODE.fullmatch(value):
            raise ValueError("must be permissions in octal, such as 660")
        return value

    @property
    def uds_permissions(self) -> int:
        """The permissions of the Unix socket."""
        return int(self.uds_mode, 8)

    @field_validator("trusted_proxies")
    @classmethod
    def _known_proxies(cls, value: str) -> str:
        return ",".join(read_proxies(value))

    @field_validator("root_path")
    @classmethod
    def _clean_path(cls, value: str) -> str:
        if value and not value.startswith("/"):
            raise ValueError("must start with /")
        if not _PREFIX.fullmatch(value):
            raise ValueError("must be a path of letters, digits, and . _ ~ - between single slashes")
        return value.rstrip("/")
