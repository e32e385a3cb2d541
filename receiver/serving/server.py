"""uvicorn, extended for long-lived requests and for more kinds of clients.

A stop ends streams and long polls, and a connection can be aborted. An offer to change the protocol is ignored, blanks
around the value of a header are not part of it, and HTTP/1.0 gets no chunks.
"""

import asyncio
import contextlib
import resource
import struct
import sys
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET, socket
from types import FrameType
from typing import cast

import httptools
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from receiver.asgi import ABORT

_UNREAD_SECONDS = 2.0
"""When the service stops, a client that does not read its response is disconnected after this time."""
_CHECK_SECONDS = 0.05

_DISCARD_UNSENT = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of 0: a close discards what was not sent, and resets the connection."""
_FILES = 65_536


def raise_file_limit() -> None:
    """Raise this process's limit of open files, and so of connections, as far as the hard limit allows.

    The usual soft limit of 1,024 exists for programs that call `select`, which this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # the present limit will do
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class ServerConnection(HttpToolsProtocol):
    """A connection that the application can abort, and that a client which stops reading cannot keep open.

    Offers to change the protocol are ignored, as RFC 9110 (section 7.8) allows: the request is answered over HTTP/1.1.
    Java's HttpClient makes such an offer (`Upgrade: h2c`) with each first request to a plain http URL.
    """

    def data_received(self, data: bytes) -> None:
        """Parse what the client sent."""
        self._unset_keepalive_if_required()
        unread = data
        while unread:
            unread = self._parse(unread)

    def _parse(self, data: bytes) -> bytes:
        """Parse data; return what has to be parsed again: all from a request on that offered another protocol."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser takes the rest for the other protocol. A new one gets the request without the offer, so that
            # it finds the body and the next requests.
            head = self._head_without_offer()
            self.parser = _request_parser(self)
            return head + data[int(upgrade.args[0]) :]
        except httptools.HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)
        return b""

    def _head_without_offer(self) -> bytes:
        request_line = b"%s %s HTTP/%s" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        lines = [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([request_line, *lines, b"", b""])

    def on_message_begin(self) -> None:
        """Offer the application the extension `ABORT`."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.abort}}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; blanks around its value are not part of it (RFC 9110, section 5.5)."""
        super().on_header(name, value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        """Begin to serve the request, unless it has to be parsed again."""
        if not self._offers_other_protocol():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request's body, unless it has to be parsed again."""
        if not self._offers_other_protocol():
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if cycle.scope["http_version"] != "1.1":
            app = cast("ASGI3Application", _WithoutChunks(cast("ASGIApp", app), cycle))
        super()._start_asgi_task(cycle, app)

    def _offers_other_protocol(self) -> bool:
        # CONNECT is an upgrade to the parser too, with or without an offer.
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    @property
    def idle(self) -> bool:
        """Whether no request is in progress on it."""
        return self.cycle is None or self.cycle.response_complete

    def shutdown(self) -> None:
        """Finish the request in progress; abort after `_UNREAD_SECONDS` if the client does not read the response."""
        super().shutdown()
        self.loop.call_later(_UNREAD_SECONDS, self._abort_if_unread)

    def abort(self) -> None:
        """Reset the connection, and let the kernel discard what the client has not received."""
        connected = self.transport.get_extra_info("socket")
        if connected is not None:
            with contextlib.suppress(OSError):  # it is closed already
                connected.setsockopt(SOL_SOCKET, SO_LINGER, _DISCARD_UNSENT)
        self.transport.abort()

    def _abort_if_unread(self) -> None:
        if self.flow.write_paused:
            self.abort()


class _WithoutChunks:
    """Responds to one request in HTTP/1.0 or older: a body whose length is not known ends with the connection.

    Only HTTP/1.1 has chunks (RFC 9112, section 6.1).
    """

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application respond."""
        is_unknown = False

        async def send_without_chunks(message: Message) -> None:
            nonlocal is_unknown
            if message["type"] == "http.response.start":
                is_unknown = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
                if is_unknown:
                    self._cycle.chunked_encoding = False
                    self._cycle.expected_content_length = sys.maxsize
            elif is_unknown and not message.get("more_body", False):
                self._cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, send_without_chunks)


def _request_parser(connection: ServerConnection) -> httptools.HttpRequestParser:
    """Return a parser as uvicorn makes it for a new connection."""
    parser = httptools.HttpRequestParser(connection)
    # Requests that the client sent behind one with `Connection: close` do not keep that one from being answered.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


class Server(uvicorn.Server):
    """Ends streams and long polls before it waits for connections to close.

    `end_waits` ends them. During a stop, idle connections stay open for `linger_seconds`: a request that the client has
    already sent is answered, and the response says that the connection closes. `on_ready` is called when the server
    has started.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        end_waits: Callable[[], None],
        *,
        linger_seconds: float = 0.0,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._end_waits = end_waits
        self._linger_seconds = linger_seconds
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop, from the end of the start to the beginning of the stop."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal to stop. Waits end at once, not at uvicorn's next check: `/readyz` depends on that."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end_waits)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start, then call `on_ready`."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._on_ready()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop gracefully."""
        self._loop = None
        self._end_waits()
        for server in self.servers:
            server.close()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        for connection in list(self.server_state.connections):
            if isinstance(connection, ServerConnection) and not connection.idle:
                connection.shutdown()
        await self._wait_until_disconnected(self._linger_seconds)
        await super().shutdown(sockets)

    async def _wait_until_disconnected(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Polled, because uvicorn has no event for the end of its last connection.
                while self.server_state.connections and not self.force_exit:  # noqa: ASYNC110
                    await asyncio.sleep(_CHECK_SECONDS)
