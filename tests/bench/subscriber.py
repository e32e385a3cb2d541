"""A subscriber that responds at once or misbehaves: `/ok` returns 200, `/fail` 500, and `/hang` never responds."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.bench.http_server import http_response, serving

_OK, _FAIL = http_response(), http_response(status="500 Internal Server Error")
_TASK_ID = b'"task_id":"'
_TIMEOUT_SECONDS = 60.0


class Subscriber:
    """The deliveries received at `/ok`. Times are those of the performance counter."""

    def __init__(self) -> None:
        self.base = ""
        self.count = 0
        self.first_received_at: dict[str, float] = {}
        """When the first delivery for each task was received, by the task's id."""
        self._awaited = 0
        self._enough = asyncio.Event()

    @property
    def url(self) -> str:
        """The URL at which it accepts deliveries."""
        return f"{self.base}/ok"

    def reset(self) -> None:
        """Discard what was received."""
        self.count = 0
        self.first_received_at.clear()

    async def received(self, count: int) -> None:
        """Wait until `count` deliveries have been received since the last reset. Ends the bench on a timeout."""
        self._awaited = count
        self._enough.clear()
        if self.count < count:
            try:
                async with asyncio.timeout(_TIMEOUT_SECONDS):
                    await self._enough.wait()
            except TimeoutError:
                raise SystemExit(f"the subscriber received only {self.count} of {count} deliveries") from None

    def span(self) -> float:
        """Return the seconds from the first to the last delivery received."""
        return max(self.first_received_at.values()) - min(self.first_received_at.values())

    def respond(self, request: bytes) -> bytes | None:
        """Return the response to a delivery; None keeps the sender waiting."""
        path = request.split(b" ", 2)[1]
        if path == b"/hang":
            return None
        if path == b"/fail":
            return _FAIL
        self.count += 1
        at = request.find(_TASK_ID) + len(_TASK_ID)
        self.first_received_at.setdefault(request[at : at + 36].decode(), time.perf_counter())
        if self.count == self._awaited:
            self._enough.set()
        return _OK


@asynccontextmanager
async def subscribing() -> AsyncIterator[Subscriber]:
    """Run a subscriber; yield it."""
    subscriber = Subscriber()
    async with serving(subscriber.respond) as subscriber.base:
        yield subscriber
