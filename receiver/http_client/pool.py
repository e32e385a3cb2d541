"""The connections to the servers of one scheme: a bounded number in use, and those that are kept for a while."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic

from receiver.http_client.connection import Connection
from receiver.http_client.dialer import Dialer
from receiver.http_client.errors import ConnectTimedOut, NoPlace, PoolClosed
from receiver.http_client.origin import Origin
from receiver.http_client.response_reader import ResponseReader

_SWEEP_SECONDS = 0.5


class ConnectionPool:
    """Connections that `dialer` makes: at most `limit` in use at a time, and at most as many kept.

    One that was not used for `idle_seconds` is closed. Of those kept to a server the last used is taken first, so that
    no more are kept than are needed. Those who wait for a place get one in turn. `make_reader` makes the reader of a
    connection's responses. Call `aclose` at the end.
    """

    def __init__(
        self, dialer: Dialer, make_reader: Callable[[], ResponseReader], *, limit: int, idle_seconds: float
    ) -> None:
        self._dialer = dialer
        self._make_reader = make_reader
        self._limit = self._places = limit
        self._idle_seconds = idle_seconds
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._in_use: set[Connection] = set()
        self._kept: dict[Origin, list[Connection]] = {}
        self._by_age: dict[Connection, None] = {}
        """Those kept, the one that was used longest ago first."""
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    def take(self, origin: Origin) -> Connection | None:
        """Return a kept connection, None if there is none or no place is free. `give_back` is to be called after it."""
        if self._places <= 0:
            return None
        connection = self._pop_kept(origin)
        if connection is not None:
            self._places -= 1
            self._in_use.add(connection)
        return connection

    async def acquire(
        self, origin: Origin, *, place_seconds: float | None = None, connect_seconds: float | None = None
    ) -> Connection:
        """Return a connection when a place is free, a new one if none is kept.

        Raises `NotConnected`, and `NoPlace` and `ConnectTimedOut` after these seconds.
        """
        if self._is_closed:
            raise PoolClosed
        if self._places > 0:
            self._places -= 1
        else:
            await self._wait_for_place(place_seconds)
        try:
            connection = self._pop_kept(origin)
            if connection is None:
                connection = await self._dial(origin, connect_seconds)
            if self._is_closed:
                connection.abort()
                raise PoolClosed
        except BaseException:
            self._free_place()
            raise
        self._in_use.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep a connection that was taken, or close it where it must not be used again."""
        self._in_use.discard(connection)
        if connection.is_reusable and not self._is_closed:
            self._keep(connection)
        else:
            connection.abort()
        self._free_place()

    async def aclose(self) -> None:
        """Close all connections; who waits for one gets an error."""
        self._is_closed = True
        for place in self._waiting:
            if not place.done():
                place.set_exception(PoolClosed())
        self._waiting.clear()
        for connection in [*self._in_use, *self._by_age]:
            connection.cut()
        if self._sweep is not None:
            self._sweep.cancel()
        await asyncio.sleep(0)  # in which the transports close their sockets

    async def _dial(self, origin: Origin, seconds: float | None) -> Connection:
        dialing = self._dialer.dial(origin, partial(self._make, origin))
        if seconds is None:
            return await dialing
        try:
            async with asyncio.timeout(seconds):
                return await dialing
        except TimeoutError as error:
            raise ConnectTimedOut(error) from error

    def _make(self, origin: Origin) -> Connection:
        return Connection(origin, self._make_reader(), self._forget)

    def _pop_kept(self, origin: Origin) -> Connection | None:
        kept = self._kept.get(origin)
        if kept is None:
            return None
        connection = kept.pop()
        if not kept:
            del self._kept[origin]
        del self._by_age[connection]
        is_old = monotonic() - connection.idle_since > self._idle_seconds  # the sweep is late, and the others are older
        if is_old or not connection.is_reusable:
            connection.close()
            return None
        return connection

    def _keep(self, connection: Connection) -> None:
        if len(self._by_age) >= self._limit:
            next(iter(self._by_age)).close()
        connection.rest(monotonic())
        self._kept.setdefault(connection.origin, []).append(connection)
        self._by_age[connection] = None
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._close_old)

    def _forget(self, connection: Connection) -> None:
        """Take note that a connection was closed."""
        if connection in self._by_age:
            del self._by_age[connection]
            kept = self._kept[connection.origin]
            kept.remove(connection)
            if not kept:
                del self._kept[connection.origin]

    def _close_old(self) -> None:
        self._sweep = None
        used_before = monotonic() - self._idle_seconds
        for connection in [each for each in self._by_age if each.idle_since <= used_before]:
            connection.close()
        if self._by_age:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._close_old)

    async def _wait_for_place(self, seconds: float | None) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(seconds):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._free_place()  # it was given one just when its wait was ended
            if isinstance(error, TimeoutError):
                raise NoPlace from error
            raise

    def _free_place(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._places += 1
