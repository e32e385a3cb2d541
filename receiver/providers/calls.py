"""One HTTP call to a provider: within the rate limit, bounded in time and size; what goes wrong is returned as data.

How a body is read, and what of it is a secret, is the provider's: its package derives from `HTTPCalls`.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar, cast

import httpx
from msgspec import Struct, field

from receiver.clock import wall_now
from receiver.domain.content_encoding import EncodingUnknown, content_encodings, unpack
from receiver.domain.redaction import redact_text
from receiver.domain.retry_after import retry_after_seconds
from receiver.errors import RingbackError, TooLarge
from receiver.hidden_fields import HidesFields
from receiver.large_bodies import LARGE_BYTES, read_apart
from receiver.lease_check import LeaseEnded, check_lease
from receiver.providers.base import CallerKey, ConfirmSend
from receiver.providers.outgoing import Timeouts, Transport, WholeBody
from receiver.providers.rate_limiter import RateLimiter
from receiver.providers.transport import exchange, open_transport

LONGEST_CONNECT = 5.0
LONGEST_WAIT_FOR_ROOM = 10.0
LONGEST_RETRY_AFTER = 3600.0
LARGEST_RESPONSE = 16 * 1024 * 1024
"""Bytes, as they arrive and unpacked. A page of a hundred tasks with their outputs is far smaller."""
_MOST_ENCODINGS = 1
"""Of a response's body. One that is packed again has no honest reason: it is read as if it were not packed."""
_PAUSE_WITHOUT_HINT = 1.0
"""Seconds to pause after a 429 without `Retry-After`."""

_CALLS_LEFT = ("x-ratelimit-remaining", "ratelimit-remaining")
_HEADERS_READ = {name.encode(): name for name in ("content-encoding", "retry-after", "date", *_CALLS_LEFT)}
_HEADERS = {"accept": "application/json", "accept-encoding": "gzip, deflate", "user-agent": "ringback"}
_JSON_HEADER = {"content-type": "application/json"}
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
"""Errors after which it is certain that nothing was sent."""


class CallResponse(HidesFields, Struct, frozen=True):
    """A response. `body` is its JSON value without secrets, None if it is not JSON; `text` is a plain-text body.

    `retry_after` is in seconds; `size` is that of the body, in bytes and unpacked. `date` is when the provider says
    that it answered, `calls_left` how many calls it says that it still lets through. `is_file` says that the body is a
    file that was asked about and not read, `headers` has the head of an answer that could have been one.
    """

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"headers"})

    status: int
    body: Any
    text: str
    retry_after: float | None
    size: int = 0
    date: str | None = None
    calls_left: str | None = None
    is_file: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def effective_status(self) -> int | None:
        """The HTTP status that the response means; None for a success that does not say that it is one."""
        return self.status


class NotSent(Struct, frozen=True):
    """The request was not sent: the provider knows nothing of it."""

    message: str
    retry_after: float | None = None


class ResponseLost(Struct, frozen=True):
    """The request was sent, or may have been, and no complete response arrived."""

    message: str


R = TypeVar("R", bound=CallResponse)


class HTTPCalls(ABC, Generic[R]):
    """Makes calls to a provider. Every call takes one token of `rate_limiter`.

    `secrets`, and what a call names as `hidden`, are redacted where a response repeats them. `timeout` (seconds) bounds
    each phase, the wait for the rate limit included; connecting may take at most 5. At most `concurrency` calls are
    open at a time (None: any number); one that finds no room within 10 s is not sent.
    """

    def __init__(
        self,
        *,
        base_url: str,
        headers: Mapping[str, str],
        secrets: tuple[str, ...],
        timeout: float,
        rate_limiter: RateLimiter,
        concurrency: int | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._secrets = secrets
        self._timeout = timeout
        self._connect = min(LONGEST_CONNECT, timeout)
        self._headers = {**_HEADERS, **headers}
        self._json_headers = {**self._headers, **_JSON_HEADER}
        self._timeouts = Timeouts(self._connect, timeout, timeout)
        self.rate_limiter = rate_limiter
        self._opening = asyncio.Lock()
        self._opened: Transport | None = None
        self._room = None if concurrency is None else asyncio.Semaphore(concurrency)

    @abstractmethod
    def read_body(self, body: bytes, hidden: tuple[str, ...]) -> tuple[Any, str]:
        """Return the JSON value of a response's body, None if it is not JSON, and its text if it is plain text.

        Neither may have anything of `hidden`. It is called in a thread for a large body.
        """

    @abstractmethod
    def response(self, status: int, value: Any, text: str, retry_after: float | None, size: int, **more: Any) -> R:
        """Return a response; `more` are the other fields of `CallResponse`."""

    async def call(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str | int] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        hidden: str = "",
        caller: CallerKey | None = None,
        confirm: ConfirmSend | None = None,
        file_types: Sequence[str] = (),
    ) -> R | NotSent | ResponseLost:
        """Make one call when the rate limit admits it. Raises nothing for what the provider or the network does.

        `url` is a path below the base URL, or a whole URL. `headers` are sent besides those of every call. Of a success
        whose content type is one of `file_types` the body is not read: it may be a video.
        """
        send = partial(self._exchange, method, url, params, content, headers, hidden, file_types)
        if self._room is None:
            return await self._call(send, caller, confirm)
        try:
            async with asyncio.timeout(LONGEST_WAIT_FOR_ROOM):
                await self._room.acquire()
        except TimeoutError:
            return NotSent("as many calls are open as the account may have at a time", 1.0)
        try:
            return await self._call(send, caller, confirm)
        finally:
            self._room.release()

    async def _call(
        self, send: Callable[[], Awaitable[R]], caller: CallerKey | None, confirm: ConfirmSend | None
    ) -> R | NotSent | ResponseLost:
        # No longer than for a response: the lease on the task runs out while the call waits.
        if not await self.rate_limiter.acquire_within(self._timeout, caller):
            return NotSent("the rate limit of calls to the provider is used up", self.rate_limiter.paused_for() or None)
        if confirm is not None and not await confirm():
            return NotSent("the call was called off before it was sent")
        try:
            # The timeouts of the phases do not bound a response that arrives byte by byte.
            async with asyncio.timeout(self._connect + 3 * self._timeout):
                response = await send()
        except NOT_SENT as error:
            return NotSent(_cause(error))
        except LeaseEnded:
            return NotSent("its lease ended before it was sent")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return ResponseLost(_cause(error))
        pause_if_asked(self.rate_limiter, response.effective_status, response.retry_after)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            transport, self._opened = self._opened, None
            await transport.aclose()

    async def _exchange(
        self,
        method: str,
        url: str,
        params: Mapping[str, str | int] | None,
        content: bytes | None,
        headers: Mapping[str, str] | None,
        hidden: str,
        file_types: Sequence[str],
    ) -> R:
        transport = self._opened or await self._open()
        check_lease()  # a connection through a proxy looks no later
        whole = self._base_url + url if url.startswith("/") else url
        own = self._headers if content is None else self._json_headers
        response = await exchange(
            transport,
            method,
            whole if params is None else str(httpx.URL(whole, params=params)),
            {**own, **headers} if headers else own,
            content,
        )
        stream = cast(httpx.AsyncByteStream, response.stream)
        is_file = bool(file_types) and is_file_type(
            response.status_code, response.headers.get("content-type", ""), file_types
        )
        try:
            body = b"" if is_file else await _whole(stream)
        finally:
            await stream.aclose()  # of a file the rest is not sent
        secrets = (*self._secrets, hidden)
        if file_types:
            head = {name: _redacted(value, secrets) for name, value in response.headers.items()}
            more = {"is_file": is_file, "headers": head}
        else:
            more = {}
        if len(body) <= LARGE_BYTES:
            with suppress(TooLarge):  # when it is unpacked
                return self._read(response, body, secrets, LARGE_BYTES, more)
        return await read_apart(lambda: self._read(response, body, secrets, LARGEST_RESPONSE, more))

    def _read(
        self, response: httpx.Response, body: bytes, hidden: tuple[str, ...], limit: int, more: Mapping[str, Any]
    ) -> R:
        """Return the response with this body, which may be packed.

        Raises `TooLarge` if it has more than `limit` bytes when it is unpacked, and `DecodingError` for one that no
        limit helps.
        """
        headers = headers_read(response.headers)
        if "content-encoding" in headers:
            body = _unpacked(body, headers["content-encoding"], limit)
        value, text = self.read_body(body, hidden)
        retry_after = None
        if "retry-after" in headers:
            retry_after = retry_after_seconds(headers["retry-after"], wall_now(), longest=LONGEST_RETRY_AFTER)
        left = next((headers[name] for name in _CALLS_LEFT if name in headers), None)
        more = {"date": headers.get("date"), "calls_left": left, **more}
        return self.response(response.status_code, value, text, retry_after, len(body), **more)

    async def _open(self) -> Transport:
        # Opened by the first call: it needs a running event loop, and not every process makes calls.
        async with self._opening:
            if self._opened is None:
                self._opened = await open_transport(self._base_url, self._timeouts)
            return self._opened


def pause_if_asked(rate_limiter: RateLimiter, status: int | None, retry_after: float | None) -> None:
    """Pause all calls if a response with this status, and these seconds in its `Retry-After`, asks for it."""
    if status == 429:
        rate_limiter.pause(_PAUSE_WITHOUT_HINT if retry_after is None else retry_after)
    elif status == 503 and retry_after is not None:
        rate_limiter.pause(retry_after)


def is_file_type(status: int, content_type: str, file_types: Sequence[str]) -> bool:
    """Return whether an answer is a success with a file of one of these types, such as `image/*`."""
    if not 200 <= status < 300:
        return False
    given = content_type.partition(";")[0].strip().lower()
    return any(given.startswith(each[:-1]) if each.endswith("/*") else given == each for each in file_types)


def _redacted(text: str, secrets: Sequence[str]) -> str:
    for secret in filter(None, secrets):
        text = redact_text(text, secret)
    return text


def headers_read(headers: httpx.Headers) -> dict[str, str]:
    """Return those of the headers that are looked at, by their names in lower case.

    httpx's own look-up of one goes through all of them, and decodes them again.
    """
    found: dict[str, str] = {}
    for name, value in headers.raw:
        known = _HEADERS_READ.get(name.lower())
        if known is not None:
            text = _text(value)
            found[known] = f"{found[known]}, {text}" if known in found else text
    return found


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


async def _whole(stream: httpx.AsyncByteStream) -> bytes:
    if isinstance(stream, WholeBody):
        return await stream.whole(LARGEST_RESPONSE)
    parts: list[bytes] = []
    size = 0
    # Not httpx's decoding iterator: it costs a third of the whole call, and unpacks without a bound.
    async for part in stream:
        size += len(part)
        if size > LARGEST_RESPONSE:
            raise httpx.DecodingError("the response is too large")
        parts.append(part)
    return b"".join(parts)


def _unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    try:
        return unpack(body, content_encodings(encoding, _MOST_ENCODINGS), limit)
    except EncodingUnknown:
        # It was not asked for, and some servers name one that they do not use: what it is shows when it is read.
        return body
    except TooLarge:
        if limit < LARGEST_RESPONSE:
            raise
        raise httpx.DecodingError("the response is too large") from None
    except RingbackError as error:
        raise httpx.DecodingError(error.message) from None


def _cause(error: Exception) -> str:
    """Return a message for what happened, without the exception's own text: some repeat a header's value."""
    if isinstance(error, httpx.DecodingError):
        return "the provider's response cannot be read"
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return f"the provider did not answer in time ({type(error).__name__})"
    return f"the connection to the provider failed ({type(error).__name__})"
