"""An httpx transport over aiohttp's connections, for calls to a provider.

Why both libraries: the connection pool under httpx, httpcore, examines every connection for every call, so that 64
concurrent calls cost twenty times the CPU time of one. aiohttp's pool does not. Its errors are translated so that what
httpx promises still holds. `receiver.providers.transport` imports this module when the first transport is opened.
"""

import io
import ssl
from collections.abc import AsyncIterable, AsyncIterator
from types import MappingProxyType
from typing import cast

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, AbstractStreamWriter
from aiohttp.connector import Connection as AiohttpConnection
from yarl import URL

from receiver.http_client.head_reader import MOST_HEAD_BYTES
from receiver.lease_check import LeaseEnded, check_lease
from receiver.lookups.resolver import NameLookups
from receiver.providers.bounded_handler import bound_responses
from receiver.providers.transport import IDLE_SECONDS, MOST_CONNECTIONS

_LONG_BODY = 1 << 20
_NO_LIMITS: MappingProxyType[str, float | None] = MappingProxyType({})
_FAULTS = (aiohttp.ClientError, OSError, ValueError)
"""What aiohttp raises. ValueError: a request that cannot be written as HTTP."""


class LeasedRequest(aiohttp.ClientRequest):
    """A request that is not written if the lease under which it is sent has ended."""

    async def send(self, conn: AiohttpConnection) -> aiohttp.ClientResponse:
        """Check the lease, then write a request without a body, or let `write_bytes` do it. Raises `LeaseEnded`."""
        check_lease()
        return await super().send(conn)

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: AiohttpConnection, content_length: int | None = None
    ) -> None:
        """Check the lease, then write headers and body; if it has ended, the wait for the response raises `LeaseEnded`.

        `send` has checked it, but before Python 3.12 this runs in a later turn of the event loop.
        """
        try:
            check_lease()
        except LeaseEnded as ended:
            if conn.protocol is not None:
                conn.protocol.set_exception(ended)
            return
        await super().write_bytes(writer, conn, content_length)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends httpx's requests through an aiohttp session, and raises httpx's errors.

    `ConnectError`, `ConnectTimeout` and `UnsupportedProtocol` are raised only if no byte of the request was sent. A GET
    or DELETE may be sent twice, if the server closed a kept connection; a POST never is. `LeaseEnded` is raised where
    a request is sent under a lease (`receiver.lease_check`). `lookups` resolves names, and is closed with it.
    """

    def __init__(self, tls: ssl.SSLContext, lookups: NameLookups | None = None) -> None:
        tls.set_alpn_protocols(["http/1.1"])
        self._lookups = lookups or NameLookups("provider", share=MOST_CONNECTIONS)
        connector = aiohttp.TCPConnector(
            ssl=tls,
            limit=MOST_CONNECTIONS,
            keepalive_timeout=IDLE_SECONDS,
            resolver=cast(AbstractResolver, self._lookups),
        )
        bound_responses(connector)
        self._session = aiohttp.ClientSession(
            request_class=LeasedRequest,
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # httpx.Response does it
            trust_env=False,
            max_line_size=MOST_HEAD_BYTES,
            max_field_size=MOST_HEAD_BYTES,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; return the response when its headers have arrived.

        Content that is not in memory is sent as its stream yields it. If the stream raises, `RemoteProtocolError` is
        raised.
        """
        try:
            response = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=_headers(request),
                data=_data(request),
                skip_auto_headers=("content-type",),
                allow_redirects=False,
                timeout=_timeout(request),
            )
        except _FAULTS as error:
            raise _as_httpx(error) from error
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Body(response), request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()
        await self._lookups.close()


class _Body(httpx.AsyncByteStream):
    """A response's body, as it arrives."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while part := await self._response.content.readany():
                yield part
        except _FAULTS as error:
            raise _as_httpx(error) from error

    async def aclose(self) -> None:
        # Does nothing to a response that was read to its end: its connection is already back in the pool.
        self._response.close()


def _headers(request: httpx.Request) -> list[tuple[str, str]]:
    # aiohttp decides by the content whether to send it in chunks, and refuses this header beside that.
    raw = request.headers.raw
    return [(name.decode(), value.decode()) for name, value in raw if name.lower() != b"transfer-encoding"]


def _data(request: httpx.Request) -> bytes | io.BytesIO | AsyncIterable[bytes] | None:
    if not isinstance(request.stream, httpx.ByteStream):
        return cast(httpx.AsyncByteStream, request.stream)
    content = request.content
    # aiohttp sends a long body in chunks only if it is a file object; in one piece it would block the event loop.
    return io.BytesIO(content) if len(content) > _LONG_BODY else content or None


def _timeout(request: httpx.Request) -> aiohttp.ClientTimeout:
    """Return httpx's timeouts as aiohttp's, whose `connect` includes the wait for a free connection."""
    limits = request.extensions.get("timeout", _NO_LIMITS)
    connect, pool = limits.get("connect"), limits.get("pool")
    both = None if connect is None or pool is None else connect + pool
    return aiohttp.ClientTimeout(connect=both, sock_connect=connect, sock_read=limits.get("read"))


def _as_httpx(error: Exception) -> httpx.TransportError:
    """Return the httpx error for one of aiohttp's, without its text: some texts repeat a header's value."""
    kind = type(error).__name__
    match error:
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout(kind)
        case aiohttp.ClientConnectorError():
            return httpx.ConnectError(kind)
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return httpx.UnsupportedProtocol(kind)
        case TimeoutError():
            return httpx.ReadTimeout(kind)
        case OSError():
            return httpx.ReadError(kind)
        case aiohttp.ClientError():
            return httpx.RemoteProtocolError(kind)
    return httpx.LocalProtocolError(kind)
