"""The way to a provider: httpx's requests and answers over aiohttp's connections.

httpcore's pool looks at every connection for every call, so that 64 side by side cost twenty times as much.
"""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator
from types import MappingProxyType
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from yarl import URL

_MOST_CONNECTIONS = 200
# Shorter than the usual servers' (5 s), so that it is we who let go of an idle connection: a server that does so
# while a request is under way leaves us in doubt about it.
_IDLE_SECONDS = 4.0
_LONGEST_HEADER = 64 * 1024
_LONG_BODY = 1 << 20
_NO_LIMITS: MappingProxyType[str, float | None] = MappingProxyType({})
_FAULTS = (aiohttp.ClientError, OSError, ValueError)
"""What aiohttp raises. ValueError: a request that cannot be written as HTTP."""


async def open_transport(base_url: str) -> httpx.AsyncBaseTransport:
    """Open the way to `base_url`: through the environment's proxy, if it names one for it, else straight.

    Certificates are judged as httpx judges them. Call it in the loop that will use it.
    """
    # In a thread, because reading the trust store takes as long as a hundred requests.
    tls = await asyncio.to_thread(httpx.create_ssl_context)
    proxy = proxy_for(httpx.URL(base_url))
    if proxy is None:
        return AiohttpTransport(tls)
    # httpx's own: it knows what there is between a client and a proxy, and says which of the two failed.
    limits = httpx.Limits(max_connections=_MOST_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS)
    return httpx.AsyncHTTPTransport(verify=tls, proxy=proxy, limits=limits)


def proxy_for(url: httpx.URL) -> str | None:
    """Return the proxy that the environment names for `url` (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY)."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.netloc.decode("ascii")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends httpx's requests through an aiohttp session, and raises what httpx raises.

    `ConnectError`, `ConnectTimeout` and `UnsupportedProtocol` are only ever raised for a request of which nothing
    left. A GET or DELETE may go out twice, when a connection that was kept was closed; a POST never does.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        tls.set_alpn_protocols(["http/1.1"])
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=_MOST_CONNECTIONS, keepalive_timeout=_IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # httpx's answer does it
            trust_env=False,
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request, whose content is in memory; return the answer when its head is there."""
        try:
            answer = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=[(name.decode(), value.decode()) for name, value in request.headers.raw],
                data=_data(request.content),
                allow_redirects=False,
                timeout=_timeout(request),
            )
        except _FAULTS as error:
            raise _as_httpx(error) from error
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer), request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()


class _Body(httpx.AsyncByteStream):
    """An answer's body, as it comes."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while part := await self._answer.content.readany():
                yield part
        except _FAULTS as error:
            raise _as_httpx(error) from error

    async def aclose(self) -> None:
        # Does nothing to an answer that was read to its end: its connection is already back in the pool.
        self._answer.close()


def _data(content: bytes) -> bytes | io.BytesIO | None:
    # aiohttp sends a long body in pieces only if it comes as a file; in one piece it would hold up the loop.
    return io.BytesIO(content) if len(content) > _LONG_BODY else content or None


def _timeout(request: httpx.Request) -> aiohttp.ClientTimeout:
    """Return httpx's limits in aiohttp's words, whose `connect` includes the wait for a free connection."""
    limits = request.extensions.get("timeout", _NO_LIMITS)
    connect, pool = limits.get("connect"), limits.get("pool")
    both = None if connect is None or pool is None else connect + pool
    return aiohttp.ClientTimeout(connect=both, sock_connect=connect, sock_read=limits.get("read"))


def _as_httpx(error: Exception) -> httpx.TransportError:
    """Return httpx's error for aiohttp's, without its text: some repeat a header's value."""
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
