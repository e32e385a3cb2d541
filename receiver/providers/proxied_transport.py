"""Calls to a provider through a proxy: with httpx's own transport, which handles the exchange with the proxy.

Its errors say which of the two connections failed.
"""

import ssl
from collections.abc import Mapping

import httpx

from receiver.providers.outgoing import IDLE_SECONDS, MOST_CONNECTIONS, OutgoingBody, Timeouts


class ProxiedTransport:
    """Sends requests through the proxy with this URL."""

    def __init__(self, tls: ssl.SSLContext, proxy: str, timeouts: Timeouts) -> None:
        limits = httpx.Limits(max_connections=MOST_CONNECTIONS, keepalive_expiry=IDLE_SECONDS)
        self._transport = httpx.AsyncHTTPTransport(verify=tls, proxy=proxy, limits=limits)
        phases = httpx.Timeout(timeouts.read, connect=timeouts.connect, pool=timeouts.pool)
        self._extensions = {"timeout": phases.as_dict()}

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: OutgoingBody) -> httpx.Response:
        """Send a request; return the response when its headers have arrived."""
        request = httpx.Request(method, url, headers=headers, content=body, extensions=self._extensions)
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()
