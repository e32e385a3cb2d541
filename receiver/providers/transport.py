"""HTTP to a provider: httpx's requests and responses over aiohttp's connections.

Why both libraries: httpx's types and errors are what the adapters are written against, and its errors say whether a
request may have been sent, on which the fate of a create call depends (`receiver.providers.piapi.outcomes`). But the
connection pool under httpx, httpcore, examines every connection for every call, so that 64 concurrent calls cost twenty
times the CPU time of one. aiohttp's pool does not. This module joins the two: an httpx transport whose connections are
aiohttp's, and whose errors are translated so that what httpx promises still holds.
"""

import asyncio
import io
import ssl
from collections.abc import AsyncIterable, AsyncIterator
from types import MappingProxyType
from typing import cast
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver
from yarl import URL

from receiver.lease_check import LeasedRequest
from receiver.lookups.resolver import NameLookups
from receiver.response_head import MOST_HEAD_BYTES, bound_responses

_MOST_CONNECTIONS = 200
# Shorter than the usual server's (5 s), so that Ringback closes an idle connection first: a server that closes one just
# as a request is sent leaves it unknown whether the request was handled.
_IDLE_SECONDS = 4.0
_LONG_BODY = 1 << 20
_LAST_STATUS = 599
_NO_LIMITS: MappingProxyType[str, float | None] = MappingProxyType({})
_FAULTS = (aiohttp.ClientError, OSError, ValueError)
"""What aiohttp raises. ValueError: a request that cannot be written as HTTP."""


async def open_transport(base_url: str) -> httpx.AsyncBaseTransport:
    """Return a transport to `base_url`: through the proxy that the environment names for it, else direct.

    Certificates are verified as httpx verifies them. Call it in the event loop that will use the transport.
    """
    # In a thread, because reading the trust store takes as long as a hundred requests.
    tls = await asyncio.to_thread(httpx.create_ssl_context)
    proxy = proxy_for(httpx.URL(base_url))
    if proxy is None:
        return AiohttpTransport(tls)
    # httpx's own transport: it handles the exchange with a proxy, and its errors say which connection failed.
    limits = httpx.Limits(max_connections=_MOST_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS)
    return httpx.AsyncHTTPTransport(verify=tls, proxy=proxy, limits=limits)


async def exchange(transport: httpx.AsyncBaseTransport, request: httpx.Request) -> httpx.Response:
    """Send the request; return the response when its headers have arrived.

    A status above 599 is not one of HTTP, and no server can pass it on: `RemoteProtocolError`.
    """
    response = await transport.handle_async_request(request)
    if response.status_code > _LAST_STATUS:
        await response.aclose()
        raise httpx.RemoteProtocolError("the status is not one of HTTP")
    return response


def proxy_for(url: httpx.URL) -> str | None:
    """Return the proxy that the environment names for `url` (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY)."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.netloc.decode("ascii")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends httpx's requests through an aiohttp session, and raises httpx's errors.

    `ConnectError`, `ConnectTimeout` and `UnsupportedProtocol` are raised only if no byte of the request was sent. A GET
    or DELETE may be sent twice, if the server closed a kept connection; a POST never is. `LeaseEnded` is raised where
    a request is sent under a lease (`receiver.lease_check`). `lookups` resolves names, and is closed with it.
    """

    def __init__(self, tls: ssl.SSLContext, lookups: NameLookups | None = None) -> None:
        tls.set_alpn_protocols(["http/1.1"])
        self._lookups = lookups or NameLookups("provider", share=_MOST_CONNECTIONS)
        connector = aiohttp.TCPConnector(
            ssl=tls,
            limit=_MOST_CONNECTIONS,
            keepalive_timeout=_IDLE_SECONDS,
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
