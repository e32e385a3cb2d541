"""HTTP to a provider: the transport that its calls go through, direct or through a proxy.

The adapters are written against httpx's errors: these say whether a request may have been sent, on which the fate of a
create call depends (`receiver.providers.piapi.outcomes`).
"""

import asyncio
from collections.abc import Mapping
from urllib.request import getproxies, proxy_bypass

import httpx

from receiver.providers.direct_transport import DirectTransport
from receiver.providers.outgoing import OutgoingBody, Timeouts, Transport

_STATUSES = range(100, 600)


async def open_transport(base_url: str, timeouts: Timeouts) -> Transport:
    """Return a transport to `base_url`: through the proxy that the environment names for it, else direct.

    Certificates are verified as httpx verifies them. Call it in the event loop that will use the transport.
    """
    # In a thread, because reading the trust store takes as long as a hundred requests.
    tls = await asyncio.to_thread(httpx.create_ssl_context)
    proxy = proxy_for(httpx.URL(base_url))
    if proxy is None:
        return DirectTransport(tls, timeouts)
    from receiver.providers.proxied_transport import ProxiedTransport

    return ProxiedTransport(tls, proxy, timeouts)


async def exchange(
    transport: Transport, method: str, url: str, headers: Mapping[str, str], body: OutgoingBody
) -> httpx.Response:
    """Send a request; return the response when its headers have arrived.

    A status below 100 or above 599 is not one of HTTP, and no server can pass it on: `RemoteProtocolError`.
    """
    response = await transport.send(method, url, headers, body)
    if response.status_code not in _STATUSES:
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
