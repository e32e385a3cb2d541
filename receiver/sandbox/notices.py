"""Webhooks as PiAPI sends them: three attempts, five seconds apart, then never."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from receiver.sandbox.background import Background
from receiver.sandbox.script import SandboxOptions


@dataclass(frozen=True)
class Notice:
    """One webhook, as it will be on the wire. `secret` is None where the client gave none."""

    endpoint: str
    secret: str | None
    body: bytes


@dataclass
class Sending:
    """A notice on its way. `tried` is set after the first attempt, whatever came of it."""

    tried: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[None] | None = None


class NoticeSender:
    """Posts notices and counts what became of them.

    `counts`: notices `sent` (begun), `lost` (withheld on purpose), `acknowledged` (2xx), `given_up` (the last
    attempt failed); and `failed` attempts.
    """

    def __init__(self, options: Callable[[], SandboxOptions], background: Background) -> None:
        self.counts = Counter(sent=0, lost=0, acknowledged=0, failed=0, given_up=0)
        self.in_flight = 0
        """Notices that are neither acknowledged nor given up, those that wait for their time included."""
        self._options = options
        self._background = background
        self._client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        """Make the client; nothing can be sent before."""
        # A proxy of the environment has no business with loopback.
        self._client = httpx.AsyncClient(trust_env=False)

    async def close(self) -> None:
        """Close the client; what is on its way must have ended."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def send(self, notice: Notice, *, after: Sending | None, delay: float) -> Sending:
        """Send it `delay` seconds from now, and no sooner than `after` was tried once."""
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
            # The next notice of this task does not wait for our retries: so the real one gets out of order.
            sending.tried.set()
        self.counts["given_up"] += 1

    async def _post(self, notice: Notice) -> bool:
        if self._client is None:
            raise RuntimeError("the sandbox sends webhooks only while its lifespan runs")
        headers = {b"content-type": b"application/json"}
        if notice.secret is not None:
            headers[b"x-webhook-secret"] = notice.secret.encode()
        # To wait for one of our own connections is not the subscriber's fault: no limit on that.
        timeout = httpx.Timeout(self._options().webhook_timeout_seconds, pool=None)
        try:
            answer = await self._client.post(notice.endpoint, content=notice.body, headers=headers, timeout=timeout)
        except (httpx.HTTPError, httpx.InvalidURL):
            return False
        return answer.is_success
