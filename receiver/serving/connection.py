"""One connection, with bounds on what a client may send and on the time that it may take.

Requests are parsed one at a time: what a client sends behind one waits, as bytes, until it is answered.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, cast

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from receiver.asgi import ABORT, BODIES, PEER
from receiver.serving import refusals
from receiver.serving.afterwards import WithAfterwards
from receiver.serving.connections import ClientNetwork, Connections
from receiver.serving.http1_connection import Http1Connection
from receiver.serving.joined_head import JoinedHead
from receiver.serving.lean_event import LeanEvent
from receiver.serving.lingering import LingeringTransport
from receiver.serving.peers import peer_host
from receiver.serving.refusals import ConnectionRefusal
from receiver.serving.request_bounds import RequestBounds
from receiver.serving.request_flow import BodyClock, RequestFlow
from receiver.serving.unreceived import unreceived_bytes

_STOP_UNREAD_SECONDS = 2.0
"""When the service stops, a client that does not read its response is disconnected after this time."""
_LINGER_SECONDS = 2.0
"""How long a client may go on sending after a refusal, so that it can read the answer."""
_CHECK_SECONDS = 5.0
"""A body that keeps to the least rate, and a response that is being made, are looked at again after this time."""
_BEHIND_BYTES = 64 * 1024
"""With this many bytes behind a request that is in progress, reading pauses."""
_TURN_SECONDS = 0.002
"""After this processor time of parsing, the others that use the loop have their turn."""
_TURN_BYTES = 64 * 1024
"""After a read of this size too: uvloop goes on with one connection for as many as 32 reads."""

_Wait = Literal[
    "first byte",
    "headers",
    "body",
    "response",
    "next request",
    "client",  # after a refusal: the client to read the answer, and to close
    "close",  # the client to read what is left to send
]
"""What a connection waits for, which decides what the end of its deadline means."""


_PEERS: tuple[dict[object, object], ...] = ({"is_trusted": False}, {"is_trusted": True})
"""What the extension `PEER` says: one for all connections."""


_LONG = ("GET", "POST")
"""The methods of requests whose responses may go on for long: streams and long polls."""
_NEVER_LONG = b"/hooks/"
"""The start of the paths of inbound webhooks, which come most often."""
_NO_HEADERS: list[tuple[bytes, bytes]] = []
"""What a connection has before its first head, and after that of a response that may go on: nothing adds to it."""
_NO_PIPELINE: deque[Any] = deque()
"""uvicorn's queue of requests that were parsed before another one was answered: there are none here."""


class _RefusedError(Exception):
    """Raised in a callback of the parser to stop it. `_refusal` says why."""


class ServerConnection(Http1Connection):
    """A connection with bounds. The state of the server is a `Connections`."""

    # With more than about 30 attributes in its dictionary each connection would take a KiB more.
    __slots__ = (
        "_all",
        "_behind",
        "_bounds",
        "_clock",
        "_is_answered",
        "_is_over",
        "_keeps_alive",
        "_limits",
        "_most_fields",
        "_next_turn",
        "_now",
        "_payload",
        "_peer",
        "_refusal",
        "_trailers",
        "_unread",
        "_waits_for",
        "deadline",
        "unfinished_bytes",
        "unread_deadline",
    )

    network: ClientNetwork | None = None
    """Whose connection it is, as counted when it was accepted."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._payload: list[bytes] = []
        """Parts of a body that the parser has found and the application does not have."""
        super().__init__(config, server_state, app_state, _loop)
        self.pipeline = _NO_PIPELINE
        assert isinstance(server_state, Connections)  # noqa: S101 - `Server` made it
        self._all = server_state
        self._limits = server_state.limits
        self._most_fields = self._limits.max_head_fields
        self._bounds = RequestBounds(self._limits.max_head_bytes)
        self._clock = BodyClock(self.loop.time)
        self._now = time.thread_time  # the loop's time stands still within a turn
        self._peer = _PEERS[False]
        self._waits_for: _Wait = "first byte"
        self._behind = bytearray()
        """What arrived behind a request that is in progress, or in the present turn of the loop, and is not parsed."""
        self._is_answered = False
        """Whether the request is answered, and the next one begins when the client has read most of the response."""
        self._next_turn: asyncio.Handle | None = None
        self._refusal: ConnectionRefusal | None = None
        self._is_over = False
        """Whether what arrives is discarded: the connection ends."""
        self._trailers = 0
        self._unread = 0
        self.url = b""
        self.headers = _NO_HEADERS
        self.deadline = math.inf
        self.unread_deadline = math.inf
        self.unfinished_bytes = 0
        self._keeps_alive = False
        """Whether the connection may stay open once the body of the request has arrived."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin, with the deadline of the first byte."""
        super().connection_made(transport)
        self.client = _client(transport)
        self._peer = _PEERS[self.network is not None and self.network.is_trusted]
        self.flow = RequestFlow(transport, self._clock, self._is_full)
        now = self.loop.time()
        self.deadline = now + self._limits.first_byte_seconds
        self._all.begin(self, now)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request in progress, if there is one."""
        self._is_over = True
        self._behind.clear()
        self._all.busy(self)
        if self.network is not None:
            self._all.dismiss(self.network)
            self.network = None
        super().connection_lost(exc)

    # What arrives

    def data_received(self, data: bytes) -> None:
        """Parse what the client sent, or keep it until the request before is answered."""
        if self._is_over:
            return
        if self._waits_for == "response" or self._next_turn is not None:
            self._keep(data)
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Parse `data` as far as the end of one request, for one turn of the loop; keep the rest."""
        waited_for = self._waits_for
        turn_ends = self._now() + _TURN_SECONDS
        at = 0
        while at < len(data) and self._now() < turn_ends:
            if self._waits_for == "first byte" or (
                self._waits_for == "next request" and not self._bounds.is_stray(data, at)
            ):
                self._begin_request()
            part = self._bounds.next_part(data, at)
            if not part:
                self.refuse(self._too_large())
                return
            at += len(part)
            if again := self._parse(part):
                data, at = again + data[at:], 0
            if self._is_over:
                return
            if self._waits_for == "response":
                if at < len(data):
                    self._keep(data[at:])
                return
        self.unfinished_bytes = self._bounds.counted
        if self._waits_for == "body" and waited_for != "body":
            self._wait_for_body()
        if at < len(data) or at >= _TURN_BYTES:
            self._end_turn(data[at:])

    def _end_turn(self, rest: bytes) -> None:
        """Let others have their turn of the loop before `rest` is parsed and more is read."""
        self._next_turn = self.loop.call_soon(self._begin_turn)
        self.flow.pause_reading()
        self._behind += rest
        self.unfinished_bytes += len(rest)

    def _begin_turn(self) -> None:
        self._next_turn = None
        if self._is_over:
            return
        rest = bytes(self._behind)
        self._behind.clear()
        if self._waits_for != "body" or len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()  # else the application does, when it takes the body
        if rest:
            self._read(rest)

    def _begin_request(self) -> None:
        self._waits_for = "headers"
        self.deadline = self.loop.time() + self._limits.headers_seconds
        self._all.busy(self)

    def _wait_for_body(self) -> None:
        """Begin to measure the time of a body that has not all arrived."""
        self.deadline = self.loop.time() + self._limits.body_seconds
        self._clock.begin(len(self.cycle.body))
        # A response that begins before the body has arrived says that the connection closes. A proxy may send the rest
        # of the body no more, and its next request instead (HAProxy 2.6): it would be taken for the body.
        self._keeps_alive, self.cycle.keep_alive = self.cycle.keep_alive, False
        if not (self.cycle.waiting_for_100_continue or self.flow.read_paused):
            self._clock.run()
        self.cycle.transport = cast(
            "asyncio.Transport", LingeringTransport(self.cycle.transport, self._linger_after_response)
        )

    def _keep(self, data: bytes) -> None:
        self._behind += data
        self.unfinished_bytes = len(self._behind)
        if self._is_full():
            self.flow.pause_reading()

    def _is_full(self) -> bool:
        return self._next_turn is not None or len(self._behind) >= _BEHIND_BYTES

    def _parse(self, data: bytes) -> bytes:
        """Parse data; return what has to be parsed again. Refuse what cannot be parsed."""
        try:
            again = self.parse(data)
        except httptools.HttpParserError:
            self.refuse(self._refusal or refusals.INVALID)
            return b""
        self._give_payload()
        if again:
            self._bounds.next_request()
        return again

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """Offer the application the extensions `ABORT`, `BODIES` and `PEER`."""
        if not self.idle:  # the parser found another end of the request than we did
            self._stop_parsing(refusals.INVALID)
        super().on_message_begin()
        # Made for each request, so that a response that goes on for long does not hold it.
        self.scope["extensions"] = {
            ABORT: {"abort": self.abort},
            BODIES: self._all.bodies_offered,
            PEER: self._peer,
        }
        self._trailers = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; blanks around its value are not part of it (RFC 9110, section 5.5).

        A trailer field is dropped: it may not be merged into the headers (RFC 9110, section 6.5.1).
        """
        if self._waits_for != "headers":
            self._trailers += 1
            if self._trailers > self._most_fields:
                self._stop_parsing(refusals.CHUNKS_TOO_LARGE)
            return
        super().on_header(name, value.strip(b" \t"))
        if len(self.headers) > self._most_fields:
            self._stop_parsing(refusals.TOO_MANY_FIELDS)

    def on_headers_complete(self) -> None:
        """Begin to serve the request, unless it has to be parsed again."""
        if self.offers_other_protocol():
            return
        self._bounds.body_follows(self.headers)  # raises, and so refuses the request, before the application begins
        super().on_headers_complete()
        self.cycle.message_event = LeanEvent()  # nothing waits for uvicorn's own yet
        self._waits_for = "body"

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if cycle.scope["method"] in _LONG and not self.url.startswith(_NEVER_LONG):
            self.headers = _NO_HEADERS  # the scope has them: what releases it releases them
            app = cast("ASGI3Application", WithAfterwards(cast("ASGIApp", app), cycle, self._goes_on))
        if cycle.scope["method"] != "HEAD":  # else no body would take the head with it
            cycle.transport = cast("asyncio.Transport", JoinedHead(self.transport))
        super()._start_asgi_task(cycle, app)

    def _goes_on(self) -> None:
        """Hold less: the response may take long, and until its end nothing that arrives is parsed."""
        if self._waits_for == "response":
            self.release_parser()
        if isinstance(self.cycle.transport, JoinedHead):
            self.cycle.transport = self.cycle.transport.without()

    @property
    def on_body(self) -> Callable[[bytes], None]:
        """What the parser calls with each part of a body. It is cheap, because a chunk may have a single byte."""
        return self._payload.append

    def on_message_complete(self) -> None:
        """End the request's body, unless it has to be parsed again."""
        if self.offers_other_protocol():
            return
        self._give_payload()
        if self._keeps_alive and not self.cycle.response_started:
            self.cycle.keep_alive = True
        self._keeps_alive = False
        super().on_message_complete()
        self._bounds.next_request()
        self.unfinished_bytes = 0
        if self.cycle.response_complete:
            self._next_request()
        else:
            self._waits_for = "response"
            self.deadline = self.loop.time() + _CHECK_SECONDS

    def _give_payload(self) -> None:
        """Give the application all that the parser has found of the body."""
        if self._payload:
            body = b"".join(self._payload)
            self._payload.clear()
            self._clock.size += len(body)
            self._bounds.payload(len(body))
            super().on_body(body)

    def _stop_parsing(self, refusal: ConnectionRefusal) -> None:
        self._refusal = refusal
        raise _RefusedError

    # The response

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for it."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._wait_for_close()
        elif not self._is_over:
            self._next_request()

    def _next_request(self) -> None:
        """Wait for the next request; if some of it has arrived, parse it. First the client has to read its response."""
        now = self.loop.time()
        if self.flow.write_paused:
            self._waits_for = "response"
            self._is_answered = True
            self.deadline = now + _CHECK_SECONDS
            self.flow.resume_reading()
            return
        self._waits_for = "next request"
        self.deadline = now + self._limits.keepalive_seconds
        if self._behind:
            data = bytes(self._behind)
            self._behind.clear()
            self.unfinished_bytes = 0
            self._read(data)
        if self._waits_for == "next request" and self._next_turn is None:
            self._all.idle(self, now)
        self.flow.resume_reading()

    def pause_writing(self) -> None:
        """Make the application wait: much of its response waits to be sent. The client has a time to read it."""
        super().pause_writing()
        self._unread = self._unread_bytes()
        self.unread_deadline = self.loop.time() + self._limits.unread_seconds

    def resume_writing(self) -> None:
        """Let the application go on."""
        super().resume_writing()
        self.unread_deadline = math.inf
        if self._is_answered:
            self._is_answered = False
            if not (self._is_over or self.transport.is_closing()):
                self._next_request()

    # The end

    def shutdown(self) -> None:
        """Finish the request in progress; abort after `_STOP_UNREAD_SECONDS` if the client does not read it."""
        self._keeps_alive = False
        super().shutdown()
        self.loop.call_later(_STOP_UNREAD_SECONDS, self._abort_if_unread)

    def overdue(self, now: float) -> None:
        """Act on a deadline that is over at `now`."""
        if self.unread_deadline <= now:
            if self._is_read():
                self.unread_deadline = now + self._limits.unread_seconds
            else:
                self.abort_unread()
                return
        if self.deadline <= now:
            self._act_on_deadline(now)

    def _act_on_deadline(self, now: float) -> None:
        match self._waits_for:
            case "first byte":
                self._all.count(refusals.NO_FIRST_BYTE, self._host)
                self.close()
            case "headers":
                self.refuse(refusals.HEADERS_LATE)
            case "body":
                self._check_body(now)
            case "next request":
                self.close()
            case "response" if not self.transport.is_closing():
                self.deadline = now + _CHECK_SECONDS
            case "response":
                self._wait_for_close()
            case "client":
                self.close()
            case "close" if self.unread_deadline < math.inf or self._is_read():  # one look for each time
                self.deadline = now + self._limits.unread_seconds
            case "close":
                self.abort()

    def _check_body(self, now: float) -> None:
        """Refuse a body that is too slow. While others wait for room, the least rate gives it no more time."""
        allowed = self._limits.body_seconds
        if not self._all.bodies.is_pressed:
            allowed += self._clock.size / self._limits.least_rate
        if self._clock.spent >= allowed:
            self.refuse(refusals.BODY_LATE)
        else:
            self.deadline = now + min(_CHECK_SECONDS, allowed - self._clock.spent)

    def refuse(self, refusal: ConnectionRefusal) -> None:
        """Answer, if an answer can still be sent; then discard what arrives, and end the connection."""
        self._all.count(refusal, self._host)
        self._is_over = True
        self._all.busy(self)
        if self.transport.is_closing():
            return
        if not self.idle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.flow.resume_writing()
            if self.cycle.response_started or self._waits_for == "response":
                self.abort()
                return
        self.transport.write(refusal.answer(self.server_state.default_headers))
        self._linger()

    def _linger_after_response(self) -> bool:
        """Linger if the request's body has not all arrived; return whether that is so."""
        if self._waits_for != "body" or self.transport.is_closing():
            return False
        self._is_over = True
        self._linger()
        return True

    def _linger(self) -> None:
        self._waits_for = "client"
        self.deadline = self.loop.time() + _LINGER_SECONDS
        self._behind.clear()
        self.unfinished_bytes = 0
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    @property
    def unsent_bytes(self) -> int:
        """Bytes of responses that wait until the client reads."""
        return self.transport.get_write_buffer_size()

    def abort_unread(self) -> None:
        """Abort the connection, because its client does not read its response."""
        self._all.count(refusals.NOT_READ, self._host)
        self.abort()

    def close(self) -> None:
        """Close the connection when the client has read what was sent, which has a bound."""
        self._wait_for_close()
        self.transport.close()

    def _wait_for_close(self) -> None:
        self._is_over = True
        self._waits_for = "close"
        if self.unread_deadline == math.inf:
            self._unread = self._unread_bytes()
        self.deadline = self.loop.time() + self._limits.unread_seconds

    def _is_read(self) -> bool:
        """Return whether the client has read at the least rate since the last look."""
        unread = self._unread_bytes()
        read, self._unread = self._unread - unread, unread
        return read >= self._limits.least_rate * self._limits.unread_seconds

    def _unread_bytes(self) -> int:
        """Return how many bytes of responses the client's system has not received.

        What the system here still holds counts too: it takes more from the process only when much of it is gone, in
        steps of megabytes, for which a client at the least rate needs longer than it has.
        """
        return self.transport.get_write_buffer_size() + unreceived_bytes(self.transport)

    def _abort_if_unread(self) -> None:
        if self.flow.write_paused:
            self.abort()

    def _too_large(self) -> ConnectionRefusal:
        if self._waits_for != "headers":
            return refusals.CHUNKS_TOO_LARGE
        if not self.headers and len(self.url) > self._limits.max_head_bytes // 2:
            return refusals.URL_TOO_LONG
        return refusals.HEAD_TOO_LARGE

    @property
    def _host(self) -> str:
        return self.client[0] if self.client else ""


def _client(transport: asyncio.Transport) -> tuple[str, int] | None:
    """Return the client's address and port, with the address as settings name it; None if it is gone."""
    connected, address = transport.get_extra_info("socket"), transport.get_extra_info("peername")
    host = "" if connected is None else peer_host(connected.family, address)
    return (host, address[1] if isinstance(address, tuple) else 0) if host else None
