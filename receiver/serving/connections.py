"""All connections of one process: their number in all and by address, their deadlines, and what was refused on them."""

import asyncio
import math
from typing import Protocol

from msgspec import Struct, field
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.server import ServerState

from receiver.body_budget import BodyBudgets
from receiver.domain.client_networks import client_network
from receiver.domain.log_lines import LogLines
from receiver.serving.connection_limits import ConnectionLimits
from receiver.serving.refusals import (
    BODIES_FULL,
    MADE_ROOM,
    TOO_MANY,
    TOO_MANY_OF_ADDRESS,
    UNFINISHED,
    ConnectionRefusal,
)
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import connections_open, connections_refused, counted

log = get_logger("serving.connections")

_SWEEP_SECONDS = 1.0
_SWEEPS_A_DEADLINE = 5
"""A deadline is at most a fifth of its time late."""
_SPARED_SECONDS = 0.5
_MOST_UNFINISHED_BYTES = 64 * 1024 * 1024
"""Of heads that are not complete, and of requests that wait behind another one, on all connections together."""

_MOST_UNSENT_BYTES = 128 * 1024 * 1024
"""Of responses that wait until their clients read, on all connections together."""


class BoundedConnection(Protocol):
    """A connection, as `Connections` sees it."""

    deadline: float
    unread_deadline: float
    unfinished_bytes: int
    network: "ClientNetwork | None"

    @property
    def unsent_bytes(self) -> int:
        """Bytes of responses that wait until the client reads."""

    def abort_unread(self) -> None:
        """Abort the connection, because its client does not read."""

    def overdue(self, now: float) -> None:
        """Act on a deadline that is over."""

    def refuse(self, refusal: ConnectionRefusal) -> None:
        """Answer and end the connection."""

    def close(self) -> None:
        """Close the connection, on which no request is in progress."""


class ClientNetwork(Struct, eq=False):
    """One client's addresses (`client_network`), or all proxies that are trusted."""

    name: str
    is_trusted: bool = False
    open: int = 0
    idle: dict[BoundedConnection, float] = field(default_factory=dict)
    """Its connections without a request in progress, and since when; the one that has been idle for longest first."""


class Connections(ServerState):
    """uvicorn's state of a server, with the bounds on its connections. They count in this process alone."""

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__()
        self.limits = limits
        self.bodies = BodyBudgets.of(
            limits.bodies_in_flight_bytes, limits.body_seconds, lambda: self.count(BODIES_FULL, "")
        )
        self.bodies_offered: dict[object, object] = {"budgets": self.bodies}
        """What the extension `BODIES` says: one for all connections."""
        self._trusted_hosts = ProxyHeadersMiddleware(_no_application, limits.trusted_proxies).trusted_hosts
        self._trusted = ClientNetwork("trusted proxies", is_trusted=True)
        self._networks: dict[str, ClientNetwork] = {}
        self._open = 0
        self._idle: dict[BoundedConnection, float] = {}
        """Those of clients that are not trusted proxies, the one that has been idle for longest first."""
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._lines = LogLines()

    def admit(self, host: str) -> ClientNetwork | ConnectionRefusal:
        """Count one more connection from this address ("" if it has none), or refuse it if there are too many.

        Idle connections are closed to make room for it, where that helps.
        """
        network = self._network(host)
        if network.open >= self.limits.max_connections_per_address and not network.is_trusted:
            if not self._make_room(network.idle):
                self.count(TOO_MANY_OF_ADDRESS, host)
                return TOO_MANY_OF_ADDRESS
        elif self._open >= self.limits.max_connections and not (
            self._make_room(self._idle) or self._make_room(self._trusted.idle)
        ):
            self.count(TOO_MANY, host)
            return TOO_MANY
        network.open += 1
        self._open += 1
        if not network.is_trusted:
            self._networks[network.name] = network
        return network

    def dismiss(self, network: ClientNetwork) -> None:
        """Count one connection less."""
        network.open -= 1
        self._open -= 1
        if not network.open:
            self._networks.pop(network.name, None)

    def begin(self, connection: BoundedConnection, now: float) -> None:
        """Watch the deadlines of a connection that was made."""
        self.idle(connection, now)
        if self._sweep_timer is None:
            self._sweep_later()

    def idle(self, connection: BoundedConnection, now: float) -> None:
        """Note that no request is in progress on it."""
        network = connection.network
        if network is not None:
            network.idle[connection] = now
            if not network.is_trusted:
                self._idle[connection] = now

    def busy(self, connection: BoundedConnection) -> None:
        """Note that a request is in progress on it, or that it ended."""
        network = connection.network
        if network is not None:
            network.idle.pop(connection, None)
            if not network.is_trusted:
                self._idle.pop(connection, None)

    def count(self, refusal: ConnectionRefusal, host: str) -> None:
        """Count a refusal, and log it if none of its kind was logged in the last minute."""
        counted(connections_refused, refusal.reason).inc()
        if number := self._lines.due(refusal.reason, asyncio.get_running_loop().time()):
            log.warning("connections refused", reason=refusal.reason, client=host or None, number=number)

    def free_descriptors(self, number: int) -> None:
        """Close this number of idle connections, if there are any."""
        for _ in range(number):
            if not (self._make_room(self._idle) or self._make_room(self._trusted.idle)):
                return

    def _make_room(self, idle: dict[BoundedConnection, float]) -> bool:
        """Close the connection that has been idle for longest; return whether there was one.

        One that has been idle for a moment only is spared: a request may be on its way.
        """
        oldest, since = next(iter(idle.items()), (None, 0.0))
        if oldest is None or since > asyncio.get_running_loop().time() - _SPARED_SECONDS:
            return False
        self.busy(oldest)  # it does not count as idle any more
        counted(connections_refused, MADE_ROOM.reason).inc()
        oldest.close()
        return True

    def _network(self, host: str) -> ClientNetwork:
        if not host or host in self._trusted_hosts:
            return self._trusted
        name = client_network(host)
        if name in self._trusted_hosts:  # an IPv4 address that came over IPv6
            return self._trusted
        return self._networks.get(name) or ClientNetwork(name)

    def _sweep_later(self) -> None:
        seconds = min(_SWEEP_SECONDS, self.limits.shortest_seconds / _SWEEPS_A_DEADLINE)
        self._sweep_timer = asyncio.get_running_loop().call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        """Act on all deadlines that are over. One look at all connections costs less than a timer for each request."""
        now = asyncio.get_running_loop().time()
        unfinished: list[BoundedConnection] = []
        unread: list[BoundedConnection] = []
        for each in list(self.connections):
            connection: BoundedConnection = each  # type: ignore[assignment]  # uvicorn names its own classes
            if connection.deadline <= now or connection.unread_deadline <= now:
                connection.overdue(now)
                continue
            if connection.unread_deadline < math.inf:
                unread.append(connection)
            if connection.unfinished_bytes:
                unfinished.append(connection)
        self._bound_unfinished(unfinished)
        self._bound_unsent(unread)
        connections_open.set(len(self.connections))
        self._sweep_timer = None
        if self.connections:
            self._sweep_later()

    def _bound_unfinished(self, connections: list[BoundedConnection]) -> None:
        total = sum(connection.unfinished_bytes for connection in connections)
        if total <= _MOST_UNFINISHED_BYTES:
            return
        for connection in sorted(connections, key=lambda each: each.unfinished_bytes, reverse=True):
            total -= connection.unfinished_bytes
            connection.refuse(UNFINISHED)
            if total <= _MOST_UNFINISHED_BYTES:
                return

    def _bound_unsent(self, connections: list[BoundedConnection]) -> None:
        """Abort those whose clients have read nothing for longest, where too much waits for clients."""
        total = sum(connection.unsent_bytes for connection in connections)
        for connection in sorted(connections, key=lambda each: each.unread_deadline):
            if total <= _MOST_UNSENT_BYTES:
                return
            total -= connection.unsent_bytes
            connection.abort_unread()


async def _no_application(*_: object) -> None:
    """Stand for an application, where only uvicorn's reading of the trusted proxies is wanted."""
