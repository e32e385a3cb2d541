"""Bounds on what a provider may send around a response's body, for aiohttp's connections.

aiohttp bounds each line of a head, but not how many interim responses (1xx) precede the final one, nor what stands
between the parts of a body (the extensions of chunks, trailers), nor what arrives when nothing was asked. All of it is
read as fast as it arrives, and part of it is kept. So the protocol here counts the bytes before it passes them on.
"""

import asyncio
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from receiver.http_client.head_reader import HeadReader
from receiver.http_client.response_reader import MOST_BYTES_BESIDE_BODY


class BoundedHandler(ResponseHandler):
    """aiohttp's protocol of a connection, which ends the connection where more arrives than the bounds allow."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._head = HeadReader()
        self._beside_body = 0
        self._body_bytes = 0

    def set_response_params(self, **params: Any) -> None:
        """Begin to read the response to the next request on the connection."""
        self._head = HeadReader()
        self._beside_body = self._body_bytes = 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Count the bytes, and pass on those of the final response."""
        if not data or self._parser is None:
            super().data_received(data)
        elif self._head.ended:
            self._body_received(data)
        else:
            self._head.feed(data)
            if self._head.is_too_long:
                self._end("the head is too long")
            elif not self._head.is_http:
                self._end("this is no response")
            elif self._head.ended:
                rest, self._head.rest = self._head.rest, b""  # not held while the body is read and the connection kept
                super().data_received(self._head.lines + rest)

    def _body_received(self, data: bytes) -> None:
        payload = self._payload
        if payload is None or payload.is_eof():
            self._end("the response has an end, and more follows")
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
