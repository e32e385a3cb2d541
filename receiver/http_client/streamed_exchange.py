"""One request and its response, of which both bodies may be long: neither is held as a whole."""

import asyncio
from collections.abc import AsyncIterable

from receiver.http_client.connection import Connection
from receiver.http_client.errors import ClosedEarly, ClosedUnanswered, ConnectionLost, NotHTTP, RequestBroken
from receiver.http_client.pool import ConnectionPool
from receiver.http_client.streamed_reader import StreamedReader

MOST_UNREAD = 128 * 1024
"""Bytes of a response's body that wait to be taken. With more of them the connection is not read."""


class StreamedExchange:
    """A request on a connection that was taken from `pool`, and its response.

    `silence` (seconds, None for any) is how long the server may neither take bytes nor send any while it is waited for;
    that it takes none is seen after at most twice as long.
    The connection is given back when the response's end was taken, and closed after an error, a cancellation, or when
    `close` is called before: so one of the three must happen.
    """

    __slots__ = (
        "_connection",
        "_fault",
        "_heard",
        "_is_ended",
        "_is_paused",
        "_loop",
        "_pool",
        "_sending",
        "_silence",
        "_timer",
        "_unsent",
        "_waiter",
        "reader",
    )

    def __init__(self, pool: ConnectionPool, connection: Connection, silence: float | None) -> None:
        reader = connection.reader
        assert isinstance(reader, StreamedReader)  # noqa: S101 - the pool was made with this reader
        self.reader = reader
        self._pool = pool
        self._connection: Connection | None = connection
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self._fault: Exception | None = None
        self._is_ended = self._is_paused = False
        self._heard = 0.0
        self._unsent = 0

    async def begin(self, head: bytes, body: bytes | AsyncIterable[bytes], *, expects_body: bool = True) -> None:
        """Send the request, and return when the head of the response has arrived.

        The parts of a body that is no bytes are sent as they are; the response may arrive before the last one. Raises
        `LeaseEnded` and `ConnectionLost`, after which no byte was sent; `ClosedUnanswered` if the server closed the
        connection and answered nothing; `RequestBroken` if the body raised; TimeoutError, OSError, `ClosedEarly` and
        `NotHTTP`.
        """
        connection, reader = self._connection, self.reader
        assert connection is not None  # noqa: S101 - it is called once
        reader.expects_body = expects_body
        try:
            if isinstance(body, bytes):
                self._write(connection, head, body)
                self._unsent = connection.unsent
            else:
                self._write(connection, head, b"")
                self._sending = asyncio.create_task(self._send_parts(connection, body))
                self._sending.add_done_callback(self._sent)
            while not (reader.has_head or reader.is_over):
                await self._wait()
            if self._fault is not None or not reader.has_head:
                raise self._why()
        except BaseException:
            self.close()
            raise

    async def part(self) -> bytes:
        """Return what has arrived of the response's body, as soon as there is any; nothing at its end.

        Raises what `begin` raises if the response has no end, also when it is called once more.
        """
        connection, reader = self._connection, self.reader
        if connection is None:
            if self._is_ended:
                return b""
            raise self._fault or ClosedEarly()
        try:
            while not reader.body and not reader.is_over:
                await self._wait()
            if self._fault is not None or not (reader.body or reader.is_whole):
                raise self._why()
        except BaseException as error:
            self._fault = error if isinstance(error, Exception) else None
            self.close()
            raise
        taken = reader.take()
        if not taken:
            self._is_ended = True
            self.close()
        elif self._is_paused:
            self._is_paused = False
            connection.resume_reading()
        return taken

    def close(self) -> None:
        """Give the connection back; it is closed unless all was sent and the response read. May be called again."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._sending is not None and not self._sending.done():
            self._sending.cancel()
            connection.abort()
        elif self._is_paused:
            connection.resume_reading()
        self._pool.give_back(connection)

    def progressed(self) -> None:
        """Look at the reader: more has arrived."""
        reader, connection = self.reader, self._connection
        self._heard = self._loop.time()
        if connection is not None and len(reader.body) > MOST_UNREAD and not (self._is_paused or reader.is_over):
            self._is_paused = True
            connection.pause_reading()
        waiter = self._waiter
        if waiter is not None and not waiter.done() and (reader.has_head or reader.is_over):
            waiter.set_result(None)

    def _write(self, connection: Connection, head: bytes, body: bytes) -> None:
        try:
            connection.send(self, head, body)
        except ClosedUnanswered as closed:
            raise ConnectionLost(ConnectionResetError()) from closed

    async def _send_parts(self, connection: Connection, parts: AsyncIterable[bytes]) -> None:
        async for part in parts:
            async with asyncio.timeout(self._silence):
                await connection.write(part)

    def _sent(self, sending: "asyncio.Task[None]") -> None:
        """Take note that the request's body has ended, whole or not."""
        self._heard = self._loop.time()
        fault = None if sending.cancelled() else sending.exception()
        # That the connection is closed is no fault by itself: the server may have answered before.
        if fault is None or isinstance(fault, ClosedUnanswered) or self._connection is None:
            return
        if isinstance(fault, TimeoutError):
            self._fault = fault
        else:
            self._fault = RequestBroken()
            self._fault.__cause__ = fault
        self._connection.cut()

    async def _wait(self) -> None:
        """Wait until more has arrived. Raises TimeoutError after a silence."""
        waiter = self._waiter = self._loop.create_future()
        if self._silence is not None:
            self._timer = self._loop.call_later(self._silence, self._look)
        try:
            await waiter
        finally:
            self._waiter = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _look(self) -> None:
        """End the wait if nothing was heard of the server for too long."""
        waiter, connection, silence = self._waiter, self._connection, self._silence
        if waiter is None or waiter.done() or connection is None or silence is None:
            return
        left = self._heard + silence - self._loop.time()
        unsent, before = connection.unsent, self._unsent
        self._unsent = unsent
        is_taking = unsent != before
        if self._sending is not None and not self._sending.done():
            is_taking = True  # the wait for the server is bounded there, and its client may take its time
        if left > 0 or is_taking:
            self._timer = self._loop.call_later(left if left > 0 else silence, self._look)
        else:
            waiter.set_exception(TimeoutError())

    def _why(self) -> Exception:
        """Return why there is no response, or no end of it."""
        reader = self.reader
        if self._fault is not None:
            return self._fault
        if isinstance(reader.error, OSError) and not reader.was_closed_unanswered:
            return reader.error
        if not reader.is_closed:
            return NotHTTP()
        closed = ClosedUnanswered() if reader.was_closed_unanswered else ClosedEarly()
        closed.__cause__ = reader.error
        return closed
