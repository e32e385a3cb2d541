"""Accepts connections on a listening socket, many in one turn of the event loop, and turns away those too many."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Any

from receiver.domain.log_lines import LogLines
from receiver.serving.connections import ClientNetwork, Connections
from receiver.serving.handshakes import refuse_handshakes
from receiver.serving.peers import peer_host
from receiver.serving.refusals import ConnectionRefusal
from receiver.telemetry.log import get_logger
from receiver.telemetry.metrics import connections_refused, counted

log = get_logger("serving.acceptor")

_A_TURN = 64
"""Connections that are accepted in one turn of the loop: enough that they do not wait behind the busy ones."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE_SECONDS = 0.25
"""After the system had no descriptor or memory for a connection: the next ones wait in the backlog for this long."""
_FREED = 8
_FILE_LIMIT = "file limit"
_CHECK_SECONDS = 0.02
_LAST_TURNS = 64
_HANDSHAKE_SECONDS = 0.1
"""How long the handshakes under way may take to end, when no new one may begin."""
_KEEPALIVE_IDLE_SECONDS = 60
_KEEPALIVE_INTERVAL_SECONDS = 15
_KEEPALIVE_PROBES = 4
_UNACKNOWLEDGED_MILLISECONDS = 90_000
_READ_BYTES = 65_536


class Acceptor:
    """Accepts on one listening socket until it is closed. Has the methods of an asyncio server that uvicorn calls.

    `protocol` makes the protocol of a connection from the network that it was counted for.
    """

    def __init__(
        self, listening: socket.socket, protocol: Callable[[ClientNetwork], asyncio.Protocol], connections: Connections
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._protocol = protocol
        self._connections = connections
        self._connecting: set[asyncio.Task[None]] = set()
        self._resume_timer: asyncio.TimerHandle | None = None
        self._lines = LogLines()
        self._accepted_at = self._loop.time()
        """When the last connection came."""
        self._is_closed = False

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket."""
        return (self._listening,)

    def start(self, backlog: int) -> None:
        """Listen, and accept connections from now on."""
        _detect_dead_peers(self._listening)
        self._listening.listen(backlog)
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more connections, and close the listening socket of this process. May be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._resume_timer is not None:
            self._resume_timer.cancel()
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening.fileno())
            self._listening.close()

    async def finish(self, quiet_seconds: float, most_seconds: float, *, is_own: bool) -> None:
        """Go on accepting until no connection has come for `quiet_seconds`, `most_seconds` at most; then close.

        A connection that the kernel has made and no process has accepted is reset when the last process closes the
        listening socket: its client has sent a request, and cannot know whether it was served. `is_own` says that this
        process is the last one; so that none is reset, however many come, no further one can be made then.
        """
        began = self._loop.time()
        while (now := self._loop.time()) < began + most_seconds:
            if now >= max(began, self._accepted_at) + quiet_seconds:
                break
            await asyncio.sleep(_CHECK_SECONDS)
        else:
            if is_own and refuse_handshakes(self._listening):
                await asyncio.sleep(_HANDSHAKE_SECONDS)
        for _ in range(_LAST_TURNS):
            if self._is_closed or not self._accept():
                break
        self.close()

    async def wait_closed(self) -> None:
        """Wait until all connections that were accepted are made."""
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _accept(self) -> bool:
        """Accept the connections that wait, of one turn at most; return whether more may wait."""
        for _ in range(_A_TURN):
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error)
                    return False
                continue  # of this connection alone: it was reset before it was accepted (accept(2), "Error handling")
            self._accepted_at = self._loop.time()
            self._admit(accepted, address)
        return True

    def _admit(self, accepted: socket.socket, address: Any) -> None:
        accepted.setblocking(False)
        network = self._connections.admit(peer_host(self._listening.family, address))
        if isinstance(network, ConnectionRefusal):
            _turn_away(accepted, network.answer())
            return
        connecting = self._loop.create_task(self._connect(accepted, network))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)

    async def _connect(self, accepted: socket.socket, network: ClientNetwork) -> None:
        protocol = self._protocol(network)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted)
        except OSError:  # the client was gone before the connection was made
            self._connections.dismiss(network)
            accepted.close()

    def _pause(self, error: OSError) -> None:
        """Accept again in a while. The connections that come meanwhile wait in the listening socket's backlog."""
        counted(connections_refused, _FILE_LIMIT).inc()
        if self._lines.due(_FILE_LIMIT, self._loop.time()):
            log.error(
                "no file descriptor left for a connection",
                error=error.strerror,
                advice="raise the limit of open files (LimitNOFILE, ulimit -n), or lower RINGBACK_MAX_CONNECTIONS",
            )
        self._connections.free_descriptors(_FREED)
        if self._resume_timer is not None:
            self._resume_timer.cancel()
        self._loop.remove_reader(self._listening.fileno())
        self._resume_timer = self._loop.call_later(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._listening.fileno(), self._accept)


def _turn_away(accepted: socket.socket, answer: bytes) -> None:
    """Answer and close. What the client has sent is read before, or the close would discard the answer."""
    with accepted, contextlib.suppress(OSError):
        accepted.send(answer)
        accepted.shutdown(socket.SHUT_WR)
        accepted.recv(_READ_BYTES)


def _detect_dead_peers(listening: socket.socket) -> None:
    """Let the kernel end connections whose peer is gone without a word. Accepted sockets inherit these options."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if listening.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for name, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_SECONDS),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_SECONDS),
        ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED_MILLISECONDS),
    ):
        if hasattr(socket, name):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
