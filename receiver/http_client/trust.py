"""Which certificates of servers are trusted: those of this system's store."""

import asyncio
import ssl
from functools import cache
from threading import Lock

_reading = Lock()


async def system_trust() -> ssl.SSLContext:
    """Return the TLS settings of connections to servers that any of this system's authorities vouches for."""
    # Read when it is first needed, and in a thread: reading the store takes as long as a hundred requests.
    return _present() if _present.cache_info().currsize else await asyncio.to_thread(_read_once)


def _read_once() -> ssl.SSLContext:
    with _reading:
        return _present()


@cache
def _present() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
