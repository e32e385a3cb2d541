"""The sender: posts one signed body to one URL, and returns the result as data."""

import asyncio
import io
import os
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version
from typing import Self

import aiohttp
from yarl import URL

from receiver.clock import utc_now, wall_now
from receiver.domain.delivery_outcomes import LONGEST_RETRY_AFTER
from receiver.domain.retry_after import retry_after_seconds
from receiver.lease_check import LeasedRequest, LeaseEnded
from receiver.outbound.guard import AddressGuard, TargetForbidden
from receiver.outbound.response_head import HeadUnreadable, StatusFirstHandler
from receiver.outbound.target_url import target_url
from receiver.response_head import MOST_HEAD_BYTES, bound_responses

KEPT_BYTES = 4096
"""How much of a response's body is stored."""
_LONG_BODY = 1 << 20
_BODY_SECONDS = 5.0
"""How long the body of a response is waited for. It is only for a person to read: the status is known already."""
# Shorter than the usual server's (5 s), so that Ringback closes an idle connection first: a server that closes one just
# as a request is sent makes that attempt fail.
_IDLE_SECONDS = 4.0
_HEADERS = {
    "user-agent": f"Ringback/{version('ringback')}",
    "accept-encoding": "identity",  # the response is stored as it is: a small one cannot unpack to gigabytes
}


@dataclass(slots=True, kw_only=True)
class SendResult:
    """The result of one attempt.

    `status` is None if no response arrived; `error` is for a person, and None if a status other than a redirect's
    arrived; `response` is the start of the response's body, as far as it could be read; `retry_after` is in seconds
    from the response, at most a day.
    """

    status: int | None
    error: str | None
    response: str
    duration_ms: int
    retry_after: float | None
    started_at: datetime

    @property
    def ok(self) -> bool:
        """Whether the subscriber accepted it: a 2xx that arrived in time, whatever followed the status."""
        return self.error is None and self.status is not None and 200 <= self.status < 300


@dataclass(slots=True)
class _Received:
    """What has been received of a response up to now, to be returned however the attempt ends."""

    status: int | None = None
    error: str | None = None
    retry_after: float | None = None
    body: bytearray = field(default_factory=bytearray)


class Sender:
    """Posts bodies to subscribers, at most `connections` at once to each of https and http.

    `timeout` (seconds) is for a whole attempt, including the wait for a free connection and the response's body.
    Connections are opened by the first `send`. Use it as an async context manager, or call `aclose`.
    """

    def __init__(self, guard: AddressGuard, *, timeout: float, connections: int = 256) -> None:
        self._guard = guard
        self.timeout = timeout
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
        """Post `body` to `url` and return the result.

        What goes wrong is in the result; only CancelledError is raised, and `LeaseEnded` if it is sent under a lease.
        Redirects are not followed: a 3xx is a failure (`receiver/api/CONTRACTS.md`, "Standard Webhooks").
        """
        started_at, started, received = utc_now(), time.monotonic(), _Received()
        try:
            self._guard.check_literal(url)
            async with asyncio.timeout(self.timeout):
                await self._post(_read_url(url), headers, body, received)
        except TimeoutError:
            if received.status is None:
                received.error = f"timed out after {self.timeout:g} s"
        except LeaseEnded:
            raise
        except Exception as error:
            received.error = _explain(error)
        return SendResult(
            status=received.status,
            error=received.error,
            response=received.body.decode(errors="replace").replace("\0", ""),
            duration_ms=round((time.monotonic() - started) * 1000),
            retry_after=received.retry_after,
            started_at=started_at,
        )

    async def _post(self, url: URL, headers: Mapping[str, str], body: bytes, received: _Received) -> None:
        # aiohttp sends a long body in chunks only if it is a file object; in one piece it would block the event loop.
        data = io.BytesIO(body) if len(body) > _LONG_BODY else body
        try:
            response = await self._session(url.scheme).post(url, headers=headers, data=data, allow_redirects=False)
        except HeadUnreadable as head:
            _note(received, head.status, head.retry_after)
            return
        try:
            _note(received, response.status, response.headers.get("retry-after"))
            with suppress(aiohttp.ClientError, OSError, HeadUnreadable):  # TimeoutError is an OSError
                async with asyncio.timeout(_BODY_SECONDS):
                    await _read_start(response.content, received.body)
        finally:
            # Does nothing to a response that was read to its end: its connection is already back in the pool.
            response.close()

    def _session(self, scheme: str) -> aiohttp.ClientSession:
        if scheme not in self._sessions:
            self._sessions[scheme] = self._open(scheme)
        return self._sessions[scheme]

    def _open(self, scheme: str) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=self._guard.resolver(scheme),
            use_dns_cache=False,  # so that the guard checks each new connection
            limit=self._connections,
            limit_per_host=0,
            keepalive_timeout=_IDLE_SECONDS,
        )
        bound_responses(connector, StatusFirstHandler)
        return aiohttp.ClientSession(
            connector=connector,
            request_class=LeasedRequest,
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # `send` has the only timeout
            auto_decompress=False,
            trust_env=False,
            read_bufsize=KEPT_BYTES,
            max_line_size=MOST_HEAD_BYTES,
            max_field_size=MOST_HEAD_BYTES,
            max_headers=MOST_HEAD_BYTES,
        )


_read_url = lru_cache(maxsize=1024)(target_url)


def _note(received: _Received, status: int, retry_after: str | None) -> None:
    received.status = status
    received.retry_after = retry_after_seconds(retry_after, wall_now(), longest=LONGEST_RETRY_AFTER)
    if 300 <= status < 400:
        received.error = "redirects are not followed"


async def _read_start(content: aiohttp.StreamReader, into: bytearray) -> None:
    while len(into) < KEPT_BYTES:
        chunk = await content.read(KEPT_BYTES - len(into))
        if not chunk:
            return
        into += chunk


def _explain(error: Exception) -> str:
    """Return what went wrong, for a person, with nothing of the URL: it may contain a token."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorDNSError) else error
    match cause:
        case TargetForbidden():
            return f"address forbidden: {cause}"
        case aiohttp.ClientConnectorCertificateError():
            return f"TLS: certificate not trusted ({_certificate_fault(cause.certificate_error)})"
        case aiohttp.ClientConnectorSSLError():
            return f"TLS: no secure connection ({_tls_fault(cause.os_error)})"
        case aiohttp.ServerDisconnectedError():
            return "connection closed without a response"
        case aiohttp.ClientResponseError():
            return "the response is not valid HTTP"
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
