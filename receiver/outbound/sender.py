"""The sender: posts one signed body to one URL, and returns the result as data."""

import asyncio
import os
import ssl
import time
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import Self

from msgspec import Struct

from receiver.clock import wall_now
from receiver.domain.delivery_outcomes import LONGEST_RETRY_AFTER
from receiver.domain.retry_after import retry_after_seconds
from receiver.http_client.dialer import Dialer
from receiver.http_client.errors import (
    CertificateRefused,
    ClosedUnanswered,
    ConnectRefused,
    NameUnresolved,
    NotHTTP,
    TlsRefused,
)
from receiver.http_client.header_lines import header_lines
from receiver.http_client.origin import Origin
from receiver.http_client.pool import ConnectionPool
from receiver.http_client.response_reader import ResponseReader
from receiver.http_client.trust import system_trust
from receiver.lease_check import LeaseEnded
from receiver.outbound.guard import AddressGuard, TargetForbidden
from receiver.outbound.target_url import target_url

KEPT_BYTES = 4096
"""How much of a response's body is stored."""
_BODY_SECONDS = 5.0
"""How long the body of a response is waited for. It is only for a person to read: the status is known already."""
# Shorter than the usual server's (5 s), so that Ringback closes an idle connection first: a server that closes one just
# as a request is sent makes that attempt fail.
_IDLE_SECONDS = 4.0
_USER_AGENT = f"Ringback/{version('ringback')}"


class SendResult(Struct, kw_only=True):
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

    @property
    def ok(self) -> bool:
        """Whether the subscriber accepted it: a 2xx that arrived in time, whatever followed the status."""
        return self.error is None and self.status is not None and 200 <= self.status < 300


class _Target(Struct, frozen=True):
    """A URL, read: where it is connected to, and the beginning of every request to it."""

    scheme: str
    origin: Origin
    beginning: str


class _Attempt:
    """The wait for one response: until it is over, or its time is, or that of its body."""

    __slots__ = ("_body_timer", "_loop", "_reader", "done")

    def __init__(self, reader: ResponseReader) -> None:
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._body_timer: asyncio.TimerHandle | None = None
        self.done: asyncio.Future[None] = self._loop.create_future()

    def progressed(self) -> None:
        """Look at the reader: more has arrived."""
        if self._reader.is_over:
            self.stop()
        elif self._reader.is_judged and self._body_timer is None:
            self._body_timer = self._loop.call_later(_BODY_SECONDS, self.stop)

    def stop(self) -> None:
        """End the wait: what has arrived is the result."""
        if self._body_timer is not None:
            self._body_timer.cancel()
        if not self.done.done():
            self.done.set_result(None)


class Sender:
    """Posts bodies to subscribers, at most `connections` at once to each of https and http.

    `timeout` (seconds) is for a whole attempt, including the wait for a free connection and the response's body.
    Connections are opened by the first `send`. Use it as an async context manager, or call `aclose`.
    """

    def __init__(self, guard: AddressGuard, *, timeout: float, connections: int = 256) -> None:
        self._guard = guard
        self.timeout = timeout
        self._connections = connections
        self._pools: dict[str, ConnectionPool] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            await pool.aclose()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> SendResult:
        """Post `body` to `url` and return the result.

        What goes wrong is in the result; only CancelledError is raised, and `LeaseEnded` if it is sent under a lease.
        Redirects are not followed: a 3xx is a failure (`receiver/api/CONTRACTS.md`, "Standard Webhooks").
        """
        started, response, error = time.monotonic(), None, None
        try:
            self._guard.check_literal(url)
            response = await self._post(_read_target(url), headers, body)
        except TimeoutError as fault:
            error = f"timed out after {self.timeout:g} s" if fault.errno is None else _explain(fault)
        except LeaseEnded:
            raise
        except Exception as fault:
            error = _explain(fault)
        if response is not None and response.status is not None and 300 <= response.status < 400:
            error = "redirects are not followed"
        return SendResult(
            status=None if response is None else response.status,
            error=error,
            response="" if response is None else response.body.decode(errors="replace").replace("\0", ""),
            duration_ms=round((time.monotonic() - started) * 1000),
            retry_after=None if response is None else _retry_after(response),
        )

    async def _post(self, target: _Target, headers: Mapping[str, str], body: bytes) -> ResponseReader:
        """Return the response, as far as it was read. Raises for one that has no status.

        It belongs to a connection that another attempt may use: the caller reads it before it awaits anything.
        """
        head = _head(target, headers, len(body))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        pool = self._pool(target.scheme)
        connection = pool.take(target.origin)
        if connection is None:
            async with asyncio.timeout_at(deadline):
                connection = await pool.acquire(target.origin)
        reader = connection.reader
        attempt = _Attempt(reader)
        timer = loop.call_at(deadline, attempt.stop)
        try:
            connection.send(attempt, head, body)
            await attempt.done
        finally:
            timer.cancel()
            attempt.stop()
            pool.give_back(connection)
        if not reader.is_judged:
            raise _fault(reader)
        return reader

    def _pool(self, scheme: str) -> ConnectionPool:
        if scheme not in self._pools:
            self._pools[scheme] = ConnectionPool(
                Dialer(self._guard.resolver(scheme), system_trust if scheme == "https" else None),
                lambda: ResponseReader(KEPT_BYTES),
                limit=self._connections,
                idle_seconds=_IDLE_SECONDS,
            )
        return self._pools[scheme]


@lru_cache(maxsize=1024)
def _read_target(url: str) -> _Target:
    parts = target_url(url)
    beginning = (
        f"POST {parts.raw_path_qs} HTTP/1.1\r\n"
        f"Host: {parts.host_port_subcomponent}\r\n"
        f"user-agent: {_USER_AGENT}\r\n"
        "accept-encoding: identity\r\n"  # the response is stored as it is: a small one cannot unpack to gigabytes
    )
    if parts.raw_host is None or parts.port is None:
        raise ValueError("a URL without a host")
    return _Target(parts.scheme, Origin(parts.raw_host, parts.port), beginning)


def _head(target: _Target, headers: Mapping[str, str], length: int) -> bytes:
    """Return the head of a request. Raises ValueError for a header that would be more than one line."""
    lines = header_lines(headers.items())
    if not any(len(name) == 6 and name.lower() == "accept" for name in headers):
        lines += "Accept: */*\r\n"
    return f"{target.beginning}{lines}Content-Length: {length}\r\n\r\n".encode()


def _fault(reader: ResponseReader) -> Exception:
    """Return why there is no status."""
    if not reader.is_http:
        return NotHTTP()
    if reader.error is not None:
        return reader.error
    return ClosedUnanswered() if reader.is_over else TimeoutError()


def _retry_after(response: ResponseReader) -> float | None:
    value = response.head.retry_after
    return None if value is None else retry_after_seconds(value, wall_now(), longest=LONGEST_RETRY_AFTER)


def _explain(error: Exception) -> str:
    """Return what went wrong, for a person, with nothing of the URL: it may contain a token."""
    match error:
        case TargetForbidden():
            return f"address forbidden: {error}"
        case NameUnresolved(cause=TargetForbidden() as forbidden):
            return f"address forbidden: {forbidden}"
        case NameUnresolved():
            return "name not resolved"
        case CertificateRefused():
            return f"TLS: certificate not trusted ({error.fault})"
        case TlsRefused():
            return f"TLS: no secure connection ({_tls_fault(error.cause)})"
        case ConnectRefused():
            return _network_fault(error.cause)
        case ClosedUnanswered():
            return "connection closed without a response"
        case NotHTTP():
            return "the response is not valid HTTP"
        case ssl.SSLError():
            return f"TLS: no secure connection ({_tls_fault(error)})"
        case OSError():
            return _network_fault(error)
    return f"could not be sent ({type(error).__name__})"


def _tls_fault(error: OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return (reason or "handshake failed").replace("_", " ").lower()


def _network_fault(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else "connection failed"
