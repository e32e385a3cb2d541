"""The URL of a call to a provider, as a request line and a `Host` header have it.

httpx reads URLs: what it makes of a spelling is what goes out, whether through a proxy or not. It takes longer than all
the rest of a request, so a server is read once, and a path that httpx leaves as it is is not read at all.
"""

import re
from base64 import b64encode
from functools import lru_cache
from typing import NamedTuple

import httpx

from receiver.http_client.origin import Origin

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LAST_PORT = 65535
_PARTS = re.compile(r"(https?://[^/?#@\\]+)(/[^#]*)?")
_AS_IT_IS = re.compile(r"(?:/[A-Za-z0-9_~:-][A-Za-z0-9._~:-]*)+/?(?:\?[A-Za-z0-9._~=&-]+)?")
"""A path and query that httpx neither escapes nor shortens: no segment begins with a dot."""


class ProviderServer(NamedTuple):
    """Who is called. `authorization` is the header for the user and password that the URL names, None without one."""

    scheme: str
    origin: Origin
    host: str
    authorization: str | None

    def __repr__(self) -> str:
        return f"ProviderServer({self.scheme}://{self.host})"


def read_target(url: str) -> tuple[ProviderServer, str]:
    """Return the server of a URL, and the path and query that it is asked for.

    Raises `httpx.InvalidURL`, and `httpx.UnsupportedProtocol` for what is not an http or https URL with a
    host and a port that there is.
    """
    parts = _PARTS.fullmatch(url)
    if parts is not None and (parts[2] is None or _AS_IT_IS.fullmatch(parts[2])):
        return _known_server(parts[1]), parts[2] or "/"
    read = httpx.URL(url)
    return _server(read), read.raw_path.decode("ascii")


@lru_cache(maxsize=256)
def _known_server(url: str) -> ProviderServer:
    return _server(httpx.URL(url))


def _server(url: httpx.URL) -> ProviderServer:
    if url.scheme not in _DEFAULT_PORTS or not url.raw_host:
        raise httpx.UnsupportedProtocol("the URL is not one of http or https with a host")
    port = url.port or _DEFAULT_PORTS[url.scheme]
    if port > _LAST_PORT:  # which httpx reads, and some event loops connect to what is left of it
        raise httpx.UnsupportedProtocol("the URL has a port that there is not")
    origin = Origin(url.raw_host.decode("ascii"), port)
    named = f"{url.username}:{url.password}".encode() if url.userinfo else b""
    authorization = f"Basic {b64encode(named).decode()}" if named else None
    return ProviderServer(url.scheme, origin, url.netloc.decode("ascii"), authorization)
