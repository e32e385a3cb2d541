"""The protocol of one connection, for one request at a time."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from receiver.http_client.errors import ClosedUnanswered
from receiver.http_client.head_reader import MOST_HEAD_BYTES
from receiver.http_client.origin import Origin
from receiver.http_client.response_reader import ResponseReader
from receiver.lease_check import check_lease

LONG_BODY = 1 << 20
"""Bytes. A longer body is written in pieces, between which the event loop serves others."""
_PIECE = 1 << 18


class Exchange(Protocol):
    """What waits for the response to a request."""

    def progressed(self) -> None:
        """Look at the connection's reader: more of the response has arrived, or it is over."""


class Connection(asyncio.Protocol):
    """A connection to `origin`. `forget` is called when it is closed, by whichever side.

    `reader` has the response to the request that was sent last.
    """

    __slots__ = (
        "_early",
        "_exchange",
        "_forget",
        "_is_blocked",
        "_loop",
        "_rest",
        "_transport",
        "_unblocked",
        "idle_since",
        "is_open",
        "origin",
        "reader",
    )

    def __init__(self, origin: Origin, reader: ResponseReader, forget: Callable[["Connection"], None]) -> None:
        self.origin = origin
        self.reader = reader
        self._forget = forget
        self.is_open = False
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._early: bytes | None = b""
        """What arrived before the first request."""
        self._exchange: Exchange | None = None
        self._rest: memoryview | None = None
        self._is_blocked = False
        self._unblocked: asyncio.Future[None] | None = None

    @property
    def unsent(self) -> int:
        """How many bytes of the request wait to be sent."""
        buffered = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return buffered + (0 if self._rest is None else len(self._rest))

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent on it: all of the last one was sent, and its response read."""
        transport = self._transport
        if transport is None or not self.is_open or transport.is_closing():  # which is told in a later turn of the loop
            return False
        # With an unsent rest its end would wait for a server that may never read it, and the bytes be held for so long.
        is_sent = self._rest is None and not transport.get_write_buffer_size()
        return is_sent and (self._exchange is None or self.reader.is_reusable)

    def send(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """Write a request, and tell `exchange` of its response.

        Raises `LeaseEnded` if the lease has ended under which it is sent, and `ClosedUnanswered` if the connection is
        closed already; then nothing is written.
        """
        transport = self._transport
        if transport is None or not self.is_open or transport.is_closing():
            raise ClosedUnanswered
        check_lease()
        early, self._early = self._early, None
        self._exchange = exchange
        self.reader.begin()
        if len(body) <= LONG_BODY:
            transport.write(head + body)
        else:
            transport.write(head)
            self._rest = memoryview(body)
            self._write_on()
        if early:
            self.data_received(early)

    async def write(self, part: bytes) -> None:
        """Write more of the request, as soon as the server takes it. Raises `ClosedUnanswered`."""
        while self._is_blocked and self.is_open:
            self._unblocked = self._loop.create_future()
            await self._unblocked
        if self._transport is None or not self.is_open:
            raise ClosedUnanswered
        self._transport.write(part)

    def pause_reading(self) -> None:
        """Leave in the system's buffers what arrives, until `resume_reading`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def rest(self, now: float) -> None:
        """Take note that the response was read, and that nothing more is expected on the connection."""
        self._exchange = None
        self.idle_since = now

    def close(self) -> None:
        """Close it when what was written is sent."""
        self._leave()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        self._leave()
        if self._transport is not None:
            self._transport.abort()

    def cut(self) -> None:
        """Close it at once, and tell who waits for a response that it is over."""
        self._ended(ConnectionAbortedError())  # not the server's end, which can be that of a body
        self.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Read a part of the response. What arrives when nothing was asked ends the connection."""
        if self._exchange is not None:
            self.reader.feed(data)
            self._exchange.progressed()
        elif self._early is not None and len(self._early) < MOST_HEAD_BYTES:
            self._early += data  # of a server that answers what it has not read: the request is about to be written
        else:
            self.abort()

    def eof_received(self) -> None:
        """End the response where it is; the transport closes itself."""
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the response where it is."""
        self._ended(exc)
        self._transport = None

    def pause_writing(self) -> None:
        """Write no more: the server takes the request slower than it is written."""
        self._is_blocked = True

    def resume_writing(self) -> None:
        """Write on."""
        self._is_blocked = False
        self._unblock()
        self._write_on()

    def _ended(self, error: Exception | None) -> None:
        exchange = self._exchange
        self._leave()
        if exchange is not None:
            self.reader.end(error)
            exchange.progressed()

    def _leave(self) -> None:
        if self.is_open:
            self.is_open = False
            self._forget(self)
        self._rest = None
        self._exchange = None
        self._unblock()

    def _unblock(self) -> None:
        if self._unblocked is not None and not self._unblocked.done():
            self._unblocked.set_result(None)
            self._unblocked = None

    def _write_on(self) -> None:
        rest, transport = self._rest, self._transport
        if rest is None or transport is None or self._is_blocked:
            return
        self._rest = rest[_PIECE:] if len(rest) > _PIECE else None
        transport.write(rest[:_PIECE])
        if self._rest is not None and not self._is_blocked:
            self._loop.call_soon(self._write_on)
