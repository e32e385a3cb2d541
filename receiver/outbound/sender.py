"""The sender: one signed body to one URL, and what came of it as data."""

import asyncio
import io
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version
from typing import Self

import aiohttp
from yarl import URL

from receiver.clock import utc_now
from receiver.domain.delivery_outcomes import LONGEST_RETRY_AFTER
from receiver.domain.retry_after import retry_after_seconds
from receiver.outbound.guard import AddressGuard, TargetForbidden

KEPT_BYTES = 4096
# Shorter than the usual servers' (5 s), so that it is we who let go of an idle connection: a server that
# does so while a request is under way costs that request its attempt.
_LONG_BODY = 1 << 20
_IDLE_SECONDS = 4.0
_HEADERS = {
    "user-agent": f"Ringback/{version('ringback')}",
    "accept-encoding": "identity",  # the answer is kept as it comes: a few bytes cannot unpack to gigabytes
}


@dataclass(slots=True, kw_only=True)
class SendResult:
    """What came of one delivery attempt.

    `status` is None when no answer came; `error` is for a person and None when an answer came whole;
    `response` is the start of the answer's body; `retry_after` is in seconds from the answer, a day at most.
    """

    status: int | None
    error: str | None
    response: str
    duration_ms: int
    retry_after: float | None
    started_at: datetime

    @property
    def ok(self) -> bool:
        """Whether the subscriber took it: a 2xx that came whole and in time."""
        return self.error is None and self.status is not None and 200 <= self.status < 300


@dataclass(slots=True)
class _Heard:
    """What is known so far of an attempt under way, to be kept however it ends."""

    status: int | None = None
    error: str | None = None
    retry_after: float | None = None
    body: bytearray = field(default_factory=bytearray)


class Sender:
    """Posts bodies to subscribers, at most `connections` at once to each of https and http.

    `timeout` is for a whole attempt in seconds, the wait for a free connection and the answer's body
    included. Opens its connections at the first `send`; an async context manager, or use `aclose`.
    """

    def __init__(self, guard: AddressGuard, *, timeout: float, connections: int = 256) -> None:
        self._guard = guard
        self._timeout = timeout
        self._connections = connections
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        for session in self._sessions.values():
            await session.close()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> SendResult:
        """Post `body` to `url` and return what came of it.

        Whatever goes wrong is in the answer; nothing is raised but CancelledError. Redirects are not
        followed (Standard Webhooks: a 3xx is a failure).
        """
        started_at, started, heard = utc_now(), time.monotonic(), _Heard()
        try:
            self._guard.check_literal(url)
            async with asyncio.timeout(self._timeout):
                await self._post(_read_url(url), headers, body, heard)
        except TimeoutError:
            heard.error = f"timed out after {self._timeout:g} s"
        except Exception as error:
            heard.error = _explain(error)
        return SendResult(
            status=heard.status,
            error=heard.error,
            response=heard.body.decode(errors="replace").replace("\0", ""),
            duration_ms=round((time.monotonic() - started) * 1000),
            retry_after=heard.retry_after,
            started_at=started_at,
        )

    async def _post(self, url: URL, headers: Mapping[str, str], body: bytes, heard: _Heard) -> None:
        # aiohttp sends a long body in pieces only if it comes as a file; in one piece it would hold up the loop.
        data = io.BytesIO(body) if len(body) > _LONG_BODY else body
        response = await self._session(url.scheme).post(url, headers=headers, data=data, allow_redirects=False)
        try:
            heard.status = response.status
            heard.retry_after = retry_after_seconds(
                response.headers.get("retry-after"), utc_now(), longest=LONGEST_RETRY_AFTER
            )
            await _read_start(response.content, heard.body)
            if 300 <= response.status < 400:
                heard.error = "redirects are not followed"
        finally:
            # Does nothing to an answer that was read to its end: its connection is already back in the pool.
            response.close()

    def _session(self, scheme: str) -> aiohttp.ClientSession:
        if scheme not in self._sessions:
            self._sessions[scheme] = self._open(scheme)
        return self._sessions[scheme]

    def _open(self, scheme: str) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=self._guard.resolver(scheme),
            use_dns_cache=False,  # so that the guard judges each new connection
            limit=self._connections,
            limit_per_host=0,
            keepalive_timeout=_IDLE_SECONDS,
        )
        return aiohttp.ClientSession(
            connector=connector,
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # `send` has the one clock
            auto_decompress=False,
            trust_env=False,
            read_bufsize=KEPT_BYTES,
        )


_read_url = lru_cache(maxsize=1024)(URL)


async def _read_start(content: aiohttp.StreamReader, into: bytearray) -> None:
    while len(into) < KEPT_BYTES:
        chunk = await content.read(KEPT_BYTES - len(into))
        if not chunk:
            return
        into += chunk


def _explain(error: Exception) -> str:
    """Say for a person what went wrong, with nothing of the URL: it may hold a token."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorDNSError) else error
    match cause:
        case TargetForbidden():
            return f"address forbidden: {cause}"
        case aiohttp.ClientConnectorCertificateError():
            return f"TLS: certificate not trusted ({_certificate_fault(cause.certificate_error)})"
        case aiohttp.ClientConnectorSSLError():
            return f"TLS: no secure connection ({_tls_fault(cause.os_error)})"
        case aiohttp.ServerDisconnectedError():
            return "connection closed without an answer"
        case aiohttp.ClientPayloadError():
            return "connection lost in the middle of the answer"
        case aiohttp.ClientResponseError():
            return "the answer is not valid HTTP"
        case OSError():
            return _network_fault(cause, resolving=cause is not error)
    return f"could not be sent ({type(error).__name__})"


def _certificate_fault(error: Exception) -> str:
    return error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else "not valid"


def _tls_fault(error: OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return (reason or "handshake failed").replace("_", " ").lower()


def _network_fault(error: OSError, *, resolving: bool) -> str:
    if resolving:
        return "name not resolved"
    return os.strerror(error.errno).lower() if error.errno else "connection failed"
