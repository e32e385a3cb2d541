"""Calls to a provider over connections of our own, with the errors of httpx.

httpx's own pool examines every connection for every call, and its request costs more than all of ours, so of httpx
there are only its reading of URLs, its response and its errors here.
"""

import re
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from functools import lru_cache

import httpx

from receiver.http_client.body_parts import in_chunks, of_length
from receiver.http_client.connection import Connection
from receiver.http_client.dialer import Dialer
from receiver.http_client.errors import (
    ClosedEarly,
    ClosedUnanswered,
    ConnectTimedOut,
    NoPlace,
    NotConnected,
    NotHTTP,
    PoolClosed,
    RequestBroken,
)
from receiver.http_client.header_lines import header_lines
from receiver.http_client.pool import ConnectionPool
from receiver.http_client.streamed_exchange import StreamedExchange
from receiver.http_client.streamed_reader import StreamedReader
from receiver.lookups.resolver import NameLookups
from receiver.providers.outgoing import IDLE_SECONDS, MOST_CONNECTIONS, OutgoingBody, Timeouts, WholeBody
from receiver.providers.target import ProviderServer, read_target

_METHOD = re.compile("[A-Z]+")
_WITHOUT_LENGTH = frozenset({"GET", "HEAD", "OPTIONS"})
"""Requests that say nothing of a body if they have none."""
_OF_BODY = frozenset({"content-length", "transfer-encoding"})
"""Headers that say where a body ends: of those given, only the length of a body that comes in parts is sent."""
_REPEATED = frozenset({"GET", "HEAD", "DELETE"})
"""Requests that change nothing when they are sent twice."""
_BROKEN = (ClosedEarly, ClosedUnanswered, NotHTTP, RequestBroken)
_FAULTS = (NotConnected, NoPlace, PoolClosed, *_BROKEN, OSError, ValueError)
"""What the client of our own raises. ValueError: a request that cannot be written as HTTP."""


class DirectTransport:
    """Sends requests, at most `MOST_CONNECTIONS` at once to each of https and http, and raises httpx's errors.

    A GET, HEAD or DELETE is sent twice if the server closed a kept connection without an answer; any other never is,
    and of any other `ConnectError`, `ConnectTimeout`, `PoolTimeout` and `UnsupportedProtocol` are raised only if no
    byte of the request was sent. `LeaseEnded` is raised where a request is sent under a lease (`receiver.lease_check`).
    `lookups` resolves names, and is closed with it.
    """

    def __init__(self, tls: ssl.SSLContext, timeouts: Timeouts, lookups: NameLookups | None = None) -> None:
        tls.set_alpn_protocols(["http/1.1"])
        self._tls = tls
        self._timeouts = timeouts
        self._lookups = lookups or NameLookups("provider", share=MOST_CONNECTIONS)
        self._pools = {"https": self._pool(self._trust), "http": self._pool(None)}
        # All calls of an account have the same ones. They have its key, so they are kept no longer than this.
        self._lines_of = lru_cache(maxsize=16)(_lines)

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: OutgoingBody) -> httpx.Response:
        """Send a request; return the response when its headers have arrived.

        A body that is not in memory is sent as it comes. If it raises, `RemoteProtocolError` is raised.
        """
        try:
            exchange = await self._exchange(method, url, headers, body)
        except _FAULTS as error:
            raise _as_httpx(error) from error
        reader = exchange.reader
        return httpx.Response(reader.status or 0, headers=reader.headers, stream=_Body(exchange))

    async def aclose(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            await pool.aclose()
        await self._lookups.close()
        self._lines_of.cache_clear()

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: OutgoingBody
    ) -> StreamedExchange:
        server, path = read_target(url)
        is_in_memory = body is None or isinstance(body, bytes)
        # What is passed on has headers of its own each time.
        lines = (self._lines_of if is_in_memory else _lines)(server, tuple(headers.items()), not is_in_memory)
        head = _head(method, path, lines, body)
        content = b"" if body is None else body if isinstance(body, bytes) else _framed(headers, body)
        pool = self._pools[server.scheme]
        connection = pool.take(server.origin)
        if connection is None:
            return await self._begun(pool, await self._acquired(pool, server), method, head, content)
        try:
            return await self._begun(pool, connection, method, head, content)
        except ClosedUnanswered:
            if method not in _REPEATED or not isinstance(content, bytes):
                raise
        return await self._begun(pool, await self._acquired(pool, server), method, head, content)

    async def _begun(
        self,
        pool: ConnectionPool,
        connection: Connection,
        method: str,
        head: bytes,
        content: bytes | AsyncIterable[bytes],
    ) -> StreamedExchange:
        exchange = StreamedExchange(pool, connection, self._timeouts.read)
        await exchange.begin(head, content, expects_body=method != "HEAD")
        return exchange

    async def _acquired(self, pool: ConnectionPool, server: ProviderServer) -> Connection:
        return await pool.acquire(
            server.origin, place_seconds=self._timeouts.pool, connect_seconds=self._timeouts.connect
        )

    def _pool(self, tls: Callable[[], Awaitable[ssl.SSLContext]] | None) -> ConnectionPool:
        return ConnectionPool(
            Dialer(self._lookups, tls), StreamedReader, limit=MOST_CONNECTIONS, idle_seconds=IDLE_SECONDS
        )

    async def _trust(self) -> ssl.SSLContext:
        return self._tls


class _Body(WholeBody):
    """A response's body, as it arrives."""

    def __init__(self, exchange: StreamedExchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while part := await self._exchange.part():
                yield part
        except _FAULTS as error:
            raise _as_httpx(error) from error

    async def whole(self, most: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            while part := await self._exchange.part():
                size += len(part)
                if size > most:
                    raise httpx.DecodingError("the response is too large")
                parts.append(part)
        except _FAULTS as error:
            raise _as_httpx(error) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def aclose(self) -> None:
        self._exchange.close()


def _head(method: str, path: str, lines: str, body: OutgoingBody) -> bytes:
    """Return the head of a request, with the lines of its headers. Raises ValueError if it cannot be written as one."""
    if _METHOD.fullmatch(method) is None:
        raise ValueError("not a method")
    length = ""
    if isinstance(body, bytes) or (body is None and method not in _WITHOUT_LENGTH):
        length = f"Content-Length: {len(body or b'')}\r\n"
    return f"{method} {path} HTTP/1.1\r\n{lines}{length}\r\n".encode("ascii")


def _lines(server: ProviderServer, headers: tuple[tuple[str, str], ...], is_streamed: bool) -> str:
    """Return the lines of a head's headers, but for the length of a body in memory. Raises ValueError."""
    names = {name.lower() for name, _ in headers}
    given = headers
    if not names.isdisjoint(_OF_BODY):
        is_ours = {"transfer-encoding"} if is_streamed else _OF_BODY
        given = tuple((name, value) for name, value in headers if name.lower() not in is_ours)
    host = "" if "host" in names else f"Host: {server.host}\r\n"
    more = "" if "accept" in names else "Accept: */*\r\n"
    if server.authorization is not None and "authorization" not in names:
        more += f"Authorization: {server.authorization}\r\n"
    if is_streamed and "content-length" not in names:
        more += "Transfer-Encoding: chunked\r\n"
    return f"{host}{header_lines(given)}{more}"


def _framed(headers: Mapping[str, str], body: AsyncIterable[bytes]) -> AsyncIterable[bytes]:
    """Return the parts of a body as the head announces them."""
    length = next((value for name, value in headers.items() if name.lower() == "content-length"), None)
    return in_chunks(body) if length is None else of_length(body, int(length))


def _as_httpx(error: Exception) -> httpx.TransportError:
    """Return the httpx error for one of our own, without its text: some texts repeat a header's value."""
    kind = type(error).__name__
    match error:
        case ConnectTimedOut():
            return httpx.ConnectTimeout(kind)
        case NotConnected() | PoolClosed():
            return httpx.ConnectError(kind)
        case NoPlace():
            return httpx.PoolTimeout(kind)
        case TimeoutError() if error.errno is None:
            return httpx.ReadTimeout(kind)
        case OSError():
            return httpx.ReadError(kind)
        case ValueError():
            return httpx.LocalProtocolError(kind)
    return httpx.RemoteProtocolError(kind)
