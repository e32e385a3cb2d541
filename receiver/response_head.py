"""Bounds on what the server of a request may send around a response's body, for aiohttp's connections.

aiohttp bounds each line of a head, but not how many interim responses (1xx) precede the final one, nor what stands
between the parts of a body (the extensions of chunks, trailers), nor what arrives when nothing was asked. All of it is
read as fast as it arrives, and part of it is kept. So the protocol here counts the bytes before it passes them on.
"""

import asyncio
import re
from functools import partial
from typing import Any, ClassVar

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

MOST_HEAD_BYTES = 64 * 1024
"""Of all heads of one response together, interim ones included. What follows is not read."""
MOST_BYTES_BESIDE_BODY = 256 * 1024
"""That may arrive after the head without one byte of the body."""
_BEGINNING = b"HTTP/"
_BLANKS = re.compile(rb"[\r\n]*")
_STATUS_LINE = re.compile(rb"HTTP/[0-9](?:\.[0-9])? +([0-9]{3})(?:[ \t][^\n]*|\r)?\n")
_HEAD_END = re.compile(rb"\n\r?\n")
_HEAD_END_LENGTH = 3
_RETRY_AFTER = re.compile(rb"\nretry-after[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_SWITCHING_PROTOCOLS = 101


class ResponseHead:
    """The head of one response, from its first bytes; interim responses (1xx) are passed over.

    `status` is None until the final status line is complete.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.ended = False
        self._is_final = False
        self._in_interim = False
        self._bytes = bytearray()
        self._searched = 0
        self._passed = 0

    @property
    def too_long(self) -> bool:
        """Whether it has more than `MOST_HEAD_BYTES` and no end."""
        return not self.ended and self._passed + len(self._bytes) > MOST_HEAD_BYTES

    @property
    def retry_after(self) -> str | None:
        """The value of the header `Retry-After`, as far as the head was read."""
        found = _RETRY_AFTER.search(self._bytes)
        return None if found is None else found[1].decode("latin-1")

    def feed(self, data: bytes) -> bytes:
        """Read on; return what a parser is to get: from the final response on, or from what is no response."""
        self._bytes += data
        if not self._is_final:
            self._pass_over_interim(b"\n" in data)
            data = bytes(self._bytes) if self._is_final else b""
        if self.status is not None:
            self._find_end()
        return data

    def _pass_over_interim(self, has_line: bool) -> None:
        begin = 0
        while not self._is_final and self._passed + begin <= MOST_HEAD_BYTES:
            if not self._in_interim:
                begin = self._skip_blanks(begin)
                self._read_status(begin, has_line)
            if not self._in_interim:
                break
            end = self._head_end()
            if end is None:
                break
            begin = end
            self._in_interim = False
        del self._bytes[:begin]
        self._passed += begin
        self._searched = max(0, self._searched - begin)

    def _skip_blanks(self, begin: int) -> int:
        blanks = _BLANKS.match(self._bytes, begin)
        return begin if blanks is None else blanks.end()

    def _read_status(self, begin: int, has_line: bool) -> None:
        """Read the status line at `begin`. It is looked for when a line has ended: it may arrive byte by byte."""
        line = _STATUS_LINE.match(self._bytes, begin) if has_line else None
        if line is not None:
            status = int(line[1])
            self._searched = line.end() - 1
            self._in_interim = 100 <= status < 200 and status != _SWITCHING_PROTOCOLS
            if not self._in_interim:
                self.status, self._is_final = status, True
        elif not _BEGINNING.startswith(bytes(self._bytes[begin : begin + len(_BEGINNING)])) or (
            has_line and b"\n" in self._bytes[begin:]
        ):
            self._is_final = True

    def _find_end(self) -> None:
        end = self._head_end()
        if end is not None and self._passed + end <= MOST_HEAD_BYTES:
            del self._bytes[end:]
            self.ended = True

    def _head_end(self) -> int | None:
        """Return where the present head ends; None if that has not arrived. What was searched is passed over."""
        end = _HEAD_END.search(self._bytes, self._searched)
        if end is None:
            self._searched = max(self._searched, len(self._bytes) - _HEAD_END_LENGTH)
            return None
        return end.end()


class BoundedHandler(ResponseHandler):
    """aiohttp's protocol of a connection, which ends the connection where more arrives than the bounds allow.

    `most_body_bytes` bounds what follows the head of one response; None is no bound.
    """

    most_body_bytes: ClassVar[int | None] = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._head = ResponseHead()
        self._after_head = 0
        self._beside_body = 0
        self._body_bytes = 0

    def set_response_params(self, **params: Any) -> None:
        """Begin to read the response to the next request on the connection."""
        self._head = ResponseHead()
        self._after_head = self._beside_body = self._body_bytes = 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Count the bytes, and pass on those of the final response."""
        if not data or self._parser is None:
            super().data_received(data)
        elif self._head.ended:
            self._body_received(data)
        else:
            passed_on = self._head.feed(data)
            if self._head.too_long:
                self._end("the head is too long")
            elif passed_on:
                super().data_received(passed_on)

    def _body_received(self, data: bytes) -> None:
        payload = self._payload
        self._after_head += len(data)
        if payload is None or payload.is_eof():
            self._end("the response has an end, and more follows")
        elif self.most_body_bytes is not None and self._after_head > self.most_body_bytes:
            self._abort()  # no error: what came before is still to be read
        else:
            super().data_received(data)
            self._beside_body += len(data)
            if (error := self.exception()) is not None and payload.exception() is None:
                # aiohttp's parser refused what it got, and its reader would wait for more until its time is over.
                payload.set_exception(aiohttp.ClientPayloadError("the body is not valid HTTP"), error)
            elif payload.total_bytes != self._body_bytes:
                self._body_bytes, self._beside_body = payload.total_bytes, 0
            elif self._beside_body > MOST_BYTES_BESIDE_BODY:
                self._end("too much stands between the parts of the body")

    def _end(self, reason: str) -> None:
        self.set_exception(HttpProcessingError(message=reason))
        self._abort()

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def bound_responses(connector: aiohttp.TCPConnector, protocol: type[ResponseHandler] = BoundedHandler) -> None:
    """Make every connection that `connector` opens one of `protocol`. Call it in the event loop that will use them."""
    # aiohttp has no public setting for the protocol of its connections.
    connector._factory = partial(protocol, loop=asyncio.get_running_loop())
