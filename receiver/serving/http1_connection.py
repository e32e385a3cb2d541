"""uvicorn's protocol of a connection, for HTTP/1.1 and older alone.

An offer to change the protocol is ignored, HTTP/1.0 gets no chunks, and a connection can be aborted.
"""

import contextlib
import struct
from socket import SO_LINGER, SOL_SOCKET
from typing import cast

import httptools
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from receiver.serving.old_http import WithoutChunks

_DISCARD_UNSENT = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of 0: a close discards what was not sent, and resets the connection."""


class Http1Connection(HttpToolsProtocol):
    """A connection on which only HTTP/1.1 and older are spoken, and which the application can abort.

    Offers to change the protocol are ignored, as RFC 9110 (section 7.8) allows: the request is answered over HTTP/1.1.
    Java's HttpClient makes such an offer (`Upgrade: h2c`) with each first request to a plain http URL.
    """

    def parse(self, data: bytes) -> bytes:
        """Parse data, which has the end of one head at most.

        Return what has to be parsed again: the head of a request that offered another protocol, without the offer.
        Raises `httptools.HttpParserError`.
        """
        if self.parser is None:
            self.parser = _request_parser(self)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The parser takes the rest for the other protocol. A new one gets the request without the offer, so that
            # it finds the body and the next requests.
            head = self._head_without_offer()
            self.parser = _request_parser(self)
            return head
        return b""

    def offers_other_protocol(self) -> bool:
        """Return whether the head that was parsed makes an offer: then it is parsed again, and begins no request."""
        # CONNECT is an upgrade to the parser too, with or without an offer.
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def release_parser(self) -> None:
        """Hold no parser until there is something to parse again: a KiB, while a response goes on for long.

        Call it between two messages alone, and not in a callback of the parser.
        """
        self.parser = None  # type: ignore[assignment]  # as uvicorn does at the end

    @property
    def idle(self) -> bool:
        """Whether no request is in progress on it."""
        return self.cycle is None or self.cycle.response_complete

    def abort(self) -> None:
        """Reset the connection, and let the kernel discard what the client has not received."""
        connected = self.transport.get_extra_info("socket")
        if connected is not None:
            with contextlib.suppress(OSError):  # it is closed already
                connected.setsockopt(SOL_SOCKET, SO_LINGER, _DISCARD_UNSENT)
        self.transport.abort()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if cycle.scope["http_version"] != "1.1":
            app = cast("ASGI3Application", WithoutChunks(cast("ASGIApp", app), cycle))
        super()._start_asgi_task(cycle, app)

    def _head_without_offer(self) -> bytes:
        request_line = b"%s %s HTTP/%s" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        lines = [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([request_line, *lines, b"", b""])


def _request_parser(connection: Http1Connection) -> httptools.HttpRequestParser:
    """Return a parser as uvicorn makes it for a connection that begins."""
    parser = httptools.HttpRequestParser(connection)
    # Requests that the client sent behind one with `Connection: close` do not keep that one from being answered.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
