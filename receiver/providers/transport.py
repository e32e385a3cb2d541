"""HTTP to a provider: the transport that its calls go through, direct or through a proxy.

The adapters are written against httpx's types and errors: its errors say whether a request may have been sent, on which
the fate of a create call depends (`receiver.providers.piapi.outcomes`).
"""

import asyncio
import ssl
from urllib.request import getproxies, proxy_bypass

import httpx

MOST_CONNECTIONS = 200
# Shorter than the usual server's (5 s), so that Ringback closes an idle connection first: a server that closes one just
# as a request is sent leaves it unknown whether the request was handled.
IDLE_SECONDS = 4.0
_LAST_STATUS = 599


async def open_transport(base_url: str) -> httpx.AsyncBaseTransport:
    """Return a transport to `base_url`: through the proxy that the environment names for it, else direct.

    Certificates are verified as httpx verifies them. Call it in the event loop that will use the transport.
    """
    # In a thread, because reading the trust store takes as long as a hundred requests.
    tls = await asyncio.to_thread(_trust)
    proxy = proxy_for(httpx.URL(base_url))
    if proxy is None:
        from receiver.providers.aiohttp_transport import AiohttpTransport

        return AiohttpTransport(tls)
    # httpx's own transport: it handles the exchange with a proxy, and its errors say which connection failed.
    limits = httpx.Limits(max_connections=MOST_CONNECTIONS, keepalive_expiry=IDLE_SECONDS)
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


def _trust() -> ssl.SSLContext:
    """Return the TLS settings, and load aiohttp meanwhile: the service begins, and delivers, without it."""
    import receiver.providers.aiohttp_transport  # noqa: F401

    return httpx.create_ssl_context()
