"""The load: requests made beforehand, over kept connections, closed (each waits for its answer) or at a set pace."""

import asyncio
import itertools
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

CONNECTIONS = 64
"""Over which a provider reports: enough for the service to have something to group."""
_LENGTH = b"content-length: "


@dataclass
class Outcome:
    """What came of a load: answers by status, the seconds that each took, and the seconds that all took."""

    seconds: float = 0.0
    statuses: Counter[bytes] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """How many answers there were."""
        return self.statuses.total()

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    def expect(self, status: bytes) -> "Outcome":
        """Return it if every answer had this status; a load that was refused says nothing."""
        if set(self.statuses) != {status}:
            raise SystemExit(f"not every answer was {status.decode()}: {dict(self.statuses)}")
        return self


class _Connection(asyncio.Protocol):
    """Sends a request and, when it was answered, says so to `free`. It never sends two at once."""

    def __init__(self, outcome: Outcome, free: "Callable[[_Connection], None]") -> None:
        self._outcome = outcome
        self._free = free
        self._head = b""
        self._missing = 0
        self._status = b""
        self._sent = 0.0
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        elif not self._begins(self._head + data if self._head else data):
            return
        if self._missing <= 0:
            self._outcome.latencies.append(time.perf_counter() - self._sent)
            self._outcome.statuses[self._status] += 1
            self._free(self)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._closed:
            self._outcome.statuses[b"cut"] += 1
            self._free(self)

    def send(self, request: bytes) -> None:
        """Send a request."""
        self._sent = time.perf_counter()
        self._transport.write(request)

    def close(self) -> None:
        """Send no more."""
        self._closed = True
        self._transport.close()

    def _begins(self, data: bytes) -> bool:
        """Read the head of an answer; say whether it is here as a whole."""
        end = data.find(b"\r\n\r\n")
        self._head = data if end < 0 else b""
        if end < 0:
            return False
        at = data.find(_LENGTH, 0, end) + len(_LENGTH)
        self._status = data[9:12]
        self._missing = end + 4 + int(data[at : data.find(b"\r", at)]) - len(data)
        return True


async def _connect(
    ports: Sequence[int], count: int, outcome: Outcome, free: Callable[[_Connection], None]
) -> list[_Connection]:
    loop = asyncio.get_running_loop()
    spread = itertools.islice(itertools.cycle(ports), count)
    made = [await loop.create_connection(lambda: _Connection(outcome, free), "127.0.0.1", port) for port in spread]
    return [connection for _, connection in made]


async def closed_loop(
    ports: Sequence[int], requests: Iterable[bytes], *, connections: int = CONNECTIONS, seconds: float = math.inf
) -> Outcome:
    """Send requests, each connection its next one when it has its answer, until none is left or the time is over.

    Given an iterator, the next load goes on where this one ended.
    """
    outcome, remaining, until = Outcome(), iter(requests), math.inf
    open_now, done = connections, asyncio.Event()

    def go_on(connection: _Connection) -> None:
        nonlocal open_now
        request = next(remaining, None) if time.perf_counter() < until else None
        if request is not None:
            connection.send(request)
            return
        connection.close()
        open_now -= 1
        if open_now == 0:
            done.set()

    made = await _connect(ports, connections, outcome, go_on)
    started = time.perf_counter()
    until = started + seconds
    for connection in made:
        go_on(connection)
    await done.wait()
    outcome.seconds = time.perf_counter() - started
    return outcome


async def open_loop(port: int, requests: Iterable[bytes], per_second: float) -> list[float]:
    """Send so many requests a second, whether or not those before were answered; return when each was sent.

    Only if no connection is free a request waits for one; that wait counts as the service's.
    """
    outcome, free = Outcome(), asyncio.Queue[_Connection]()
    made = await _connect([port], CONNECTIONS, outcome, free.put_nowait)
    for connection in made:
        free.put_nowait(connection)
    sent: list[float] = []
    start = time.perf_counter()
    for number, request in enumerate(requests):
        if (wait := start + number / per_second - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        sent.append(time.perf_counter())
        (await free.get()).send(request)
    for _ in made:
        (await free.get()).close()
    outcome.expect(b"200")
    return sent


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    return statistics.median(seconds) * 1000, statistics.quantiles(seconds, n=100)[98] * 1000
