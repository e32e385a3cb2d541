"""A subscriber that answers at once, or misbehaves: `/ok` answers 200, `/fail` 500, `/hang` never."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.bench.http_server import http_response, serving

_OK, _FAIL = http_response(), http_response(status="500 Internal Server Error")
_TASK = b'"task_id":"'
_LOST_AFTER_SECONDS = 60.0


class Subscriber:
    """What was heard at `/ok`. Moments are those of the performance counter."""

    def __init__(self) -> None:
        self.base = ""
        self.count = 0
        self.first_received_at: dict[str, float] = {}
        """When each task was first heard of, by its id."""
        self._awaited = 0
        self._enough = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it is told and answers well."""
        return f"{self.base}/ok"

    def reset(self) -> None:
        """Begin anew."""
        self.count = 0
        self.first_received_at.clear()

    async def received(self, count: int) -> None:
        """Return when it heard so many since it began."""
        self._awaited = count
        self._enough.clear()
        if self.count < count:
            try:
                async with asyncio.timeout(_LOST_AFTER_SECONDS):
                    await self._enough.wait()
            except TimeoutError:
                raise SystemExit(f"the subscriber heard {self.count} of {count}") from None

    def span(self) -> float:
        """Return the seconds from the first to the last that it heard."""
        return max(self.first_received_at.values()) - min(self.first_received_at.values())

    def respond(self, request: bytes) -> bytes | None:
        """Answer a delivery."""
        path = request.split(b" ", 2)[1]
        if path == b"/hang":
            return None
        if path == b"/fail":
            return _FAIL
        self.count += 1
        at = request.find(_TASK) + len(_TASK)
        self.first_received_at.setdefault(request[at : at + 36].decode(), time.perf_counter())
        if self.count == self._awaited:
            self._enough.set()
        return _OK


@asynccontextmanager
async def subscribing() -> AsyncIterator[Subscriber]:
    """Run a subscriber."""
    subscriber = Subscriber()
    async with serving(subscriber.respond) as subscriber.base:
        yield subscriber
