"""Sending webhooks (notices) as PiAPI does: three attempts, five seconds apart, unless the options change that."""

import asyncio
from collections import Counter
from collections.abc import Callable

import httpx
from msgspec import Struct, field

from receiver.sandbox.background import Background
from receiver.sandbox.body_forms import WrittenBody
from receiver.sandbox.script import SandboxOptions

_MOST_OF_AN_ANSWER = 64 * 1024


class Notice(Struct, frozen=True):
    """One webhook to send. `secret` is None if the client set none."""

    endpoint: str
    secret: str | None
    body: WrittenBody


class Sending(Struct):
    """A notice in flight. `tried` is set after the first attempt, whether or not it succeeded."""

    tried: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[None] | None = None


class NoticeSender:
    """Posts notices and counts their results.

    `counts`: notices `sent` (at least one attempt), `lost` (withheld on purpose), `acknowledged` (2xx), `given_up`
    (the last attempt failed); and attempts that `failed`.
    """

    def __init__(self, options: Callable[[], SandboxOptions], background: Background) -> None:
        self.counts = Counter(sent=0, lost=0, acknowledged=0, failed=0, given_up=0)
        self.in_flight = 0
        """How many notices are neither acknowledged nor given up, delayed ones included."""
        self._options = options
        self._background = background
        self._client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        """Make the HTTP client; notices can be sent only after this."""
        # Subscribers of a sandbox are on loopback: no proxy of the environment can reach them.
        self._client = httpx.AsyncClient(trust_env=False)

    async def close(self) -> None:
        """Close the HTTP client. All notices must have ended before."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def send(self, notice: Notice, *, after: Sending | None, delay: float) -> Sending:
        """Send a notice after `delay` seconds, and after the first attempt at `after`."""
        sending = Sending()
        self.in_flight += 1
        sending.work = self._background.start(self._deliver(notice, sending, after, delay))
        return sending

    async def _deliver(self, notice: Notice, sending: Sending, after: Sending | None, delay: float) -> None:
        try:
            await asyncio.sleep(delay)
            if after is not None:
                await after.tried.wait()
            self.counts["sent"] += 1
            await self._attempt(notice, sending)
        finally:
            sending.tried.set()
            self.in_flight -= 1

    async def _attempt(self, notice: Notice, sending: Sending) -> None:
        for attempt in range(self._options().webhook_attempts):
            if attempt:
                await asyncio.sleep(self._options().webhook_retry_seconds)
            if await self._post(notice):
                self.counts["acknowledged"] += 1
                return
            self.counts["failed"] += 1
            # The next notice of this task does not wait for retries, so notices get out of order as PiAPI's do.
            sending.tried.set()
        self.counts["given_up"] += 1

    async def _post(self, notice: Notice) -> bool:
        if self._client is None:
            raise RuntimeError("the sandbox sends webhooks only while its lifespan runs: start it first")
        written = {"content-type": "application/json", **notice.body.headers}
        headers = {name.encode(): value.encode() for name, value in written.items()}
        if notice.secret is not None:
            headers[b"x-webhook-secret"] = notice.secret.encode()
        # No time limit for a free connection of the pool: waiting for one is not the subscriber's fault.
        timeout = httpx.Timeout(self._options().webhook_timeout_seconds, pool=None)
        try:
            async with self._client.stream(
                "POST", notice.endpoint, content=notice.body.content, headers=headers, timeout=timeout
            ) as answer:
                await _read_start(answer)
                return answer.is_success
        except (httpx.HTTPError, httpx.InvalidURL):
            return False


async def _read_start(answer: httpx.Response) -> None:
    """Read a short body to its end, so that the connection can be used again; a longer one is not wanted."""
    size = 0
    async for part in answer.aiter_raw():  # not unpacked: a small one can unpack to gigabytes
        size += len(part)
        if size > _MOST_OF_AN_ANSWER:
            return
