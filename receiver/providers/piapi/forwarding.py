"""Passes requests on to PiAPI's APIs that make no task: chat, pictures, speech and the upload of files.

Nothing is kept: the request's body is sent as it arrives, and the answer's is returned as it arrives, so that a stream
of events reaches the client event by event. Connections are apart from those of `receiver.providers.calls`: an
answer can take minutes, and many of them may not keep a task from being polled.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import httpx

from receiver.clock import wall_now
from receiver.domain.hidden_text import HiddenText
from receiver.domain.retry_after import retry_after_seconds
from receiver.providers.base import PROVIDER_UNAUTHORIZED, CallerKey
from receiver.providers.calls import LONGEST_CONNECT, LONGEST_RETRY_AFTER, NOT_SENT, pause_if_asked
from receiver.providers.forwarded import AnswerCut, ForwardedAnswer, ForwardedRequest, ForwardOutcome, NotForwarded
from receiver.providers.outgoing import Timeouts, Transport
from receiver.providers.piapi.outcomes import names_our_key
from receiver.providers.rate_limiter import RateLimiter
from receiver.providers.transport import exchange, open_transport

UPLOAD_PATH = "/api/ephemeral_resource"
"""The path that PiAPI serves at another host. Source: `receiver/providers/piapi/CONTRACT.md`, "Other APIs"."""
LARGEST_ANSWER = 256 * 1024 * 1024
"""Bytes. Speech and pictures as base64 are far smaller."""
LONGEST_ANSWER_SECONDS = 3600.0
_LONGEST_NUMBER = 18
"""Digits. Python refuses to read a number of thousands."""
KEY_REFUSED = "the provider does not accept Ringback's own key: check RINGBACK_PIAPI_API_KEY"

_PASSED_BACK = (
    *("content-type", "content-length", "content-encoding", "content-disposition", "content-language"),
    *("cache-control", "retry-after"),
)
"""Headers of an answer that concern the client. Cookies and the like are between PiAPI and us."""
_UNAVAILABLE = "provider_unavailable"
_TIMEOUT = "provider_timeout"


class Forwarder:
    """Passes requests on. Each takes one token of `rate_limiter`.

    `wait` (seconds) bounds the waits for a token and for a free connection; `idle` (seconds) bounds the wait for the
    answer and each silence in it. `key_fault` says why `api_key` cannot be used; None if it can.
    """

    def __init__(
        self,
        *,
        base_url: str,
        upload_url: str,
        api_key: str,
        key_fault: str | None,
        wait: float,
        idle: float,
        rate_limiter: RateLimiter,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._upload_url = upload_url.rstrip("/")
        self._api_key = api_key
        self._key_fault = key_fault
        self._wait = wait
        self._timeouts = Timeouts(min(LONGEST_CONNECT, idle), idle, wait)
        self._rate_limiter = rate_limiter
        self._opening = asyncio.Lock()
        self._opened: dict[str, Transport] = {}

    async def forward(self, request: ForwardedRequest, caller: CallerKey | None) -> ForwardOutcome:
        """Pass a request on; return the answer when its headers have arrived."""
        if self._key_fault:
            return NotForwarded(502, PROVIDER_UNAUTHORIZED, self._key_fault)
        if not await self._rate_limiter.acquire_within(self._wait, caller):
            message = "the rate limit of calls to the provider is used up"
            return NotForwarded(503, "unavailable", message, self._rate_limiter.paused_for() or 1.0)
        deadline = asyncio.get_running_loop().time() + LONGEST_ANSWER_SECONDS
        try:
            response = await self._send(request)
        except NOT_SENT as error:
            return NotForwarded(502, _UNAVAILABLE, f"the provider cannot be reached ({type(error).__name__})")
        except httpx.TimeoutException as error:
            return NotForwarded(504, _TIMEOUT, f"the provider did not answer in time ({type(error).__name__})")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return NotForwarded(502, _UNAVAILABLE, f"the connection to the provider failed ({type(error).__name__})")
        given = response.headers.get("retry-after")
        seconds = retry_after_seconds(given, wall_now(), longest=LONGEST_RETRY_AFTER)
        pause_if_asked(self._rate_limiter, response.status_code, seconds)
        refusal = _refusal(response)
        if refusal is not None:
            await response.aclose()
            return refusal
        body = _body(response, HiddenText(self._api_key), deadline)
        if response.status_code == 403:
            try:
                first = await anext(body, b"")  # all of an error is in the first part
            except AnswerCut as cut:
                await response.aclose()
                return NotForwarded(502, _UNAVAILABLE, str(cut))
            except BaseException:
                await response.aclose()
                raise
            if names_our_key(first):
                await response.aclose()
                return NotForwarded(502, PROVIDER_UNAUTHORIZED, KEY_REFUSED)
            body = _resumed(first, body)
        return ForwardedAnswer(
            status=response.status_code,
            headers=self._passed_back(response),
            body=body,
            aclose=response.aclose,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        opened, self._opened = self._opened, {}
        for transport in opened.values():
            await transport.aclose()

    def _passed_back(self, response: httpx.Response) -> dict[str, str]:
        """Return the headers that concern the client, without those that cannot be sent or have Ringback's key."""
        found = {name: response.headers[name] for name in _PASSED_BACK if name in response.headers}
        return {
            name: value
            for name, value in found.items()
            if value.isprintable() and not (self._api_key and self._api_key in value)
        }

    async def _send(self, request: ForwardedRequest) -> httpx.Response:
        base_url = self._upload_url if request.path == UPLOAD_PATH else self._base_url
        headers = {
            **request.headers,
            "accept-encoding": "identity",  # nothing between us and the client unpacks it
            "user-agent": "ringback",
            "authorization": f"Bearer {self._api_key}",
            "x-api-key": self._api_key,
        }
        url = f"{base_url}{request.path}{'?' if request.query else ''}{request.query}"
        return await exchange(await self._transport(base_url), request.method, url, headers, request.body)

    async def _transport(self, base_url: str) -> Transport:
        async with self._opening:
            if base_url not in self._opened:
                self._opened[base_url] = await open_transport(base_url, self._timeouts)
            return self._opened[base_url]


def _refusal(response: httpx.Response) -> NotForwarded | None:
    """Return what the client gets instead of an answer that is not for it; None for one that is."""
    status = response.status_code
    if status == 401:
        return NotForwarded(502, PROVIDER_UNAUTHORIZED, KEY_REFUSED)
    if 300 <= status < 400:
        message = f"the provider redirects (HTTP {status}): check RINGBACK_PIAPI_BASE_URL and RINGBACK_PIAPI_UPLOAD_URL"
        return NotForwarded(502, _UNAVAILABLE, message)
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > _LONGEST_NUMBER or int(length) > LARGEST_ANSWER):
        return NotForwarded(502, _UNAVAILABLE, f"the provider's answer has more than {LARGEST_ANSWER} bytes")
    return None


async def _resumed(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


async def _body(response: httpx.Response, hidden: HiddenText, deadline: float) -> AsyncIterator[bytes]:
    size = 0
    parts = aiter(cast(httpx.AsyncByteStream, response.stream))
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                part = await anext(parts)
        except StopAsyncIteration:
            break
        except (httpx.TimeoutException, TimeoutError):
            raise AnswerCut("the provider's answer paused or lasted too long") from None
        except (httpx.HTTPError, OSError) as error:
            raise AnswerCut(f"the provider's answer ended too early ({type(error).__name__})") from None
        size += len(part)
        if size > LARGEST_ANSWER:
            raise AnswerCut(f"the provider's answer has more than {LARGEST_ANSWER} bytes")
        if shown := hidden.add(part):
            yield shown
    if rest := hidden.rest():
        yield rest
