"""The load generator: it sends prepared requests over persistent connections.

In a closed loop (`closed_loop`) each connection sends its next request when it has received a response. In an open loop
(`open_loop`) requests are sent at a given rate, whether or not earlier ones have been answered.
"""

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
"""How many connections a load has: enough for the service to group several requests into one commit."""
_LENGTH = b"content-length: "


@dataclass
class Outcome:
    """The result of a load: responses by status, the latency of each in seconds, and the seconds of the whole load."""

    seconds: float = 0.0
    statuses: Counter[bytes] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """How many responses were received."""
        return self.statuses.total()

    @property
    def rate(self) -> float:
        """Responses a second."""
        return self.answered / self.seconds

    def expect(self, status: bytes) -> "Outcome":
        """Return itself if every response had this status. Otherwise end the bench: refused loads measure nothing."""
        if set(self.statuses) != {status}:
            raise SystemExit(f"every response must be {status.decode()}, but the load received {dict(self.statuses)}")
        return self


class _Connection(asyncio.Protocol):
    """Sends one request at a time; calls `free` when the response is complete or the connection is lost."""

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
        elif not self._parse_head(self._head + data if self._head else data):
            return
        if self._missing <= 0:
            self._outcome.latencies.append(time.perf_counter() - self._sent)
            self._outcome.statuses[self._status] += 1
            self._free(self)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._closed:
            self._outcome.statuses[b"connection lost"] += 1
            self._free(self)

    def send(self, request: bytes) -> None:
        """Send a request."""
        self._sent = time.perf_counter()
        self._transport.write(request)

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        self._transport.close()

    def _parse_head(self, data: bytes) -> bool:
        """Parse the head of a response; return whether it was complete."""
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
    opened = [await loop.create_connection(lambda: _Connection(outcome, free), "127.0.0.1", port) for port in spread]
    return [connection for _, connection in opened]


async def closed_loop(
    ports: Sequence[int], requests: Iterable[bytes], *, connections: int = CONNECTIONS, seconds: float = math.inf
) -> Outcome:
    """Send requests until none is left or `seconds` have passed; each connection waits for its response in between.

    `requests` may be an iterator, which the next load continues.
    """
    outcome, remaining, until = Outcome(), iter(requests), math.inf
    open_now, done = connections, asyncio.Event()

    def send_next(connection: _Connection) -> None:
        nonlocal open_now
        request = next(remaining, None) if time.perf_counter() < until else None
        if request is not None:
            connection.send(request)
            return
        connection.close()
        open_now -= 1
        if open_now == 0:
            done.set()

    opened = await _connect(ports, connections, outcome, send_next)
    started = time.perf_counter()
    until = started + seconds
    for connection in opened:
        send_next(connection)
    await done.wait()
    outcome.seconds = time.perf_counter() - started
    return outcome


async def open_loop(port: int, requests: Iterable[bytes], per_second: float) -> list[float]:
    """Send `per_second` requests a second, whether or not earlier ones are answered; return when each was sent.

    The times are those of the performance counter. A request waits for a connection only if none is free; its time is
    taken before that wait, which so counts as the service's latency.
    """
    outcome, free = Outcome(), asyncio.Queue[_Connection]()
    opened = await _connect([port], CONNECTIONS, outcome, free.put_nowait)
    for connection in opened:
        free.put_nowait(connection)
    sent: list[float] = []
    start = time.perf_counter()
    for number, request in enumerate(requests):
        if (wait := start + number / per_second - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        sent.append(time.perf_counter())
        (await free.get()).send(request)
    for _ in opened:
        (await free.get()).close()
    outcome.expect(b"200")
    return sent


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    return statistics.median(seconds) * 1000, statistics.quantiles(seconds, n=100)[98] * 1000
