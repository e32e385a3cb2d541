"""One HTTP call to PiAPI: within the budget, bounded in time and size, and never an exception for what goes wrong."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx

from receiver.clock import utc_now
from receiver.domain.redaction import REDACTED
from receiver.domain.retry_after import retry_after_seconds
from receiver.providers.base import Begin, CallerKey, MalformedUpdate
from receiver.providers.piapi.bodies import blank_secrets, read_body
from receiver.providers.rate_limiter import RateLimiter
from receiver.providers.transport import open_transport

LONGEST_CONNECT = 5.0
LONGEST_RETRY_AFTER = 3600.0
LARGEST_ANSWER = 16 * 1024 * 1024
"""Bytes: a page of a hundred tasks with their outputs is far below."""
PAUSE_WITHOUT_HINT = 1.0
"""Seconds after a 429 that does not say how long."""
LONGEST_MESSAGE = 500

_HEADERS = {"accept": "application/json", "accept-encoding": "gzip, deflate", "user-agent": "ringback"}
_OF_JSON = {"content-type": "application/json"}
_SHORTEST_HIDDEN = 6
"""Shorter than this it is no secret worth the name, and blanking it would garble ordinary words."""
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


@dataclass(frozen=True, slots=True)
class CallResponse:
    """What came back. `body` is the JSON value without secrets, None where it is none; `text` is plain text only."""

    status: int
    body: Any
    text: str
    retry_after: float | None

    @property
    def code(self) -> int | None:
        """The envelope's own code."""
        code = self.body.get("code") if isinstance(self.body, dict) else None
        if isinstance(code, str) and code.isascii() and code.isdecimal() and len(code) < 10:
            code = int(code)
        return code if isinstance(code, int) and not isinstance(code, bool) else None

    @property
    def effective_status(self) -> int | None:
        """What it comes to as an HTTP status: an error in the envelope of a 2xx counts as that error.

        200 is a success; None is a 2xx whose envelope has no code, or one that is no HTTP error.
        """
        if not 200 <= self.status < 300:
            return self.status
        if self.code in (0, 200):
            return 200
        return self.code if self.code is not None and 400 <= self.code < 600 else None

    @property
    def message(self) -> str:
        """The provider's own words, wherever it put them, or the status."""
        words = _words_in(self.body) or self.text or f"HTTP {self.status} from the provider"
        return words[:LONGEST_MESSAGE]


@dataclass(frozen=True, slots=True)
class NotSent:
    """The request did not leave: the provider knows nothing of it."""

    message: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class ResponseLost:
    """The request left, or may have, and no whole answer came back."""

    message: str


CallOutcome = CallResponse | NotSent | ResponseLost


class Calls:
    """The connections to PiAPI. Every call takes one token of `rate_limiter`.

    The key, and what a call names as `hidden`, are blanked where an answer repeats them. `timeout` bounds each
    phase, in seconds, the wait for the budget included; connecting has at most 5.
    """

    def __init__(self, *, base_url: str, api_key: str, timeout: float, rate_limiter: RateLimiter) -> None:
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._timeout = timeout
        self._connect = min(LONGEST_CONNECT, timeout)
        self._headers = {**_HEADERS, "x-api-key": api_key}
        self._phases = {"timeout": httpx.Timeout(timeout, connect=self._connect).as_dict()}
        self.rate_limiter = rate_limiter
        self._opening = asyncio.Lock()
        self._opened: httpx.AsyncBaseTransport | None = None

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        content: bytes | None = None,
        hidden: str = "",
        caller: CallerKey | None = None,
        begin: Begin | None = None,
    ) -> CallOutcome:
        """Make one call when its turn has come. Raises nothing for what the provider or the network does."""
        if not await self._may_call(caller):
            return NotSent("the provider's budget of calls is spent", self.rate_limiter.paused_for() or None)
        if begin is not None and not await begin():
            return NotSent("the call is not to be made any more")
        try:
            # The phases' time-outs do not bound an answer that comes byte by byte.
            async with asyncio.timeout(self._connect + 3 * self._timeout):
                answer = await self._exchange(method, path, params, content, hidden)
        except _NEVER_SENT as error:
            return NotSent(_cause(error))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return ResponseLost(_cause(error))
        self._obey(answer)
        return answer

    async def aclose(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            transport, self._opened = self._opened, None
            await transport.aclose()

    async def _may_call(self, caller: CallerKey | None) -> bool:
        """Wait for a token, but no longer than for an answer: the caller's lease on the task runs meanwhile."""
        if self.rate_limiter.is_ready():
            await self.rate_limiter.acquire(caller)
            return True
        if self.rate_limiter.paused_for() > self._timeout:
            return False
        try:
            async with asyncio.timeout(self._timeout):
                await self.rate_limiter.acquire(caller)
        except TimeoutError:
            return False
        return True

    async def _exchange(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None,
        content: bytes | None,
        hidden: str,
    ) -> CallResponse:
        # A transport of httpx without its client: of that nothing is needed here, and it costs as much again.
        transport = self._opened or await self._open()
        request = httpx.Request(
            method,
            self._base_url + path,
            params=params,
            content=content,
            headers=self._headers if content is None else self._headers | _OF_JSON,
            extensions=self._phases,
        )
        response = await transport.handle_async_request(request)
        try:
            body = await _read(response)
        finally:
            await response.aclose()
        return _answer(response, body, (self._api_key, hidden))

    async def _open(self) -> httpx.AsyncBaseTransport:
        # By the first call, because that is when there is a loop, and not every process calls.
        async with self._opening:
            if self._opened is None:
                self._opened = await open_transport(self._base_url)
            return self._opened

    def _obey(self, answer: CallResponse) -> None:
        if answer.effective_status == 429:
            self.rate_limiter.pause(PAUSE_WITHOUT_HINT if answer.retry_after is None else answer.retry_after)
        elif answer.effective_status == 503 and answer.retry_after is not None:
            self.rate_limiter.pause(answer.retry_after)


async def _read(response: httpx.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    # What is not compressed is taken as it comes: httpx's way to it costs a third of the whole call.
    is_compressed = "content-encoding" in response.headers
    stream = response.aiter_bytes() if is_compressed else cast(httpx.AsyncByteStream, response.stream)
    async for part in stream:
        size += len(part)
        if size > LARGEST_ANSWER:
            raise httpx.DecodingError("the answer is too large")
        parts.append(part)
    return b"".join(parts)


def _answer(response: httpx.Response, body: bytes, hidden: tuple[str, ...]) -> CallResponse:
    for secret in hidden:
        if len(secret) >= _SHORTEST_HIDDEN:
            body = body.replace(secret.encode(), REDACTED.encode())
    text = ""
    try:
        value = read_body(body)
    except MalformedUpdate:
        value = None
        text = _plain(body)
    retry_after = retry_after_seconds(response.headers.get("retry-after"), utc_now(), longest=LONGEST_RETRY_AFTER)
    return CallResponse(response.status_code, value, text, retry_after)


def _plain(body: bytes) -> str:
    """Return a short body that is meant for people; a web page is not."""
    text = body[:LONGEST_MESSAGE].decode("utf-8", "replace").replace("\0", "").strip()
    return "" if "<" in text else blank_secrets(text)


def _words_in(body: Any) -> str:
    if not isinstance(body, dict):
        return body.strip() if isinstance(body, str) else ""
    for name in ("message", "error", "description", "detail"):
        words = body.get(name)
        if isinstance(words, dict):
            words = words.get("message")
        if isinstance(words, str) and words.strip():
            return words.strip()
    return ""


def _cause(error: Exception) -> str:
    """Name what happened. The exceptions' own texts are not ours to vouch for: some repeat a header's value."""
    if isinstance(error, httpx.DecodingError):
        return "the provider's answer cannot be read"
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return f"the provider did not answer in time ({type(error).__name__})"
    return f"the connection to the provider failed ({type(error).__name__})"
