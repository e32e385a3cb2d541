"""The load: requests made beforehand, over so many kept connections, each waiting for its answer."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import uvloop


@dataclass
class Outcome:
    """What came of a load: answers by status, and the seconds that it took."""

    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.statuses["200"] / self.seconds if self.seconds else 0.0


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], outcome: Outcome, done: "asyncio.Future[None]") -> None:
        self._requests = requests
        self._outcome = outcome
        self._done = done
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own
        self._next()

    def data_received(self, data: bytes) -> None:
        # Our own answers are small: head and body come in one piece, or the body by itself after the head.
        if data.startswith(b"HTTP/1.1 "):
            self._outcome.latencies.append(time.perf_counter() - self._sent)
            self._outcome.statuses[data[9:12].decode()] += 1
            if b"\r\n\r\n{" in data or b"content-length: 0" in data:
                self._next()
        else:
            self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)


def run(port: int, requests: Sequence[bytes], connections: int) -> Outcome:
    """Send the requests; return when each was answered."""
    return uvloop.run(_run(port, requests, connections))


async def _run(port: int, requests: Sequence[bytes], connections: int) -> Outcome:
    outcome, remaining = Outcome(), iter(requests)
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    ends = []
    for _ in range(connections):
        end: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(lambda end=end: _Connection(remaining, outcome, end), "127.0.0.1", port)  # type: ignore[misc]
        ends.append(end)
    await asyncio.gather(*ends)
    outcome.seconds = time.perf_counter() - started
    return outcome
