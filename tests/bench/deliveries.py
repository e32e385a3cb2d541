"""Telling: deliveries a second against bare aiohttp, time from webhook to subscriber, and what neighbours cost."""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import uvloop
from sqlalchemy import insert
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models import DeliveryStatus, EventType
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from receiver.domain.signatures import new_secret
from receiver.storage.database import Database
from receiver.storage.tables import deliveries, events, subscriptions
from receiver.storage.transaction import Transaction
from tests.bench.material import KEYS, fill, settings_for, webhook
from tests.bench.processes import serving
from tests.fakes.servers import free_port, served

SIDE_BY_SIDE = 64
BODY = b'{"type":"task.completed","data":"' + b"x" * 900 + b'"}'
_AT_ONCE = 500


@dataclass(frozen=True)
class Tally:
    """What a subscriber heard, and when first and last (monotonic seconds)."""

    count: int
    first: float
    last: float

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return (self.count - 1) / (self.last - self.first)


class Listener:
    """The subscriber's process."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self._process = process
        self.base = f"http://127.0.0.1:{port}"

    def tally(self) -> Tally:
        """Ask what it heard so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        count, first, last = self._process.stdout.readline().split()
        return Tally(int(count), float(first), float(last))

    def heard(self, count: int, seconds: float = 60) -> Tally:
        """Return when it heard so many."""
        deadline = time.monotonic() + seconds
        while (tally := self.tally()).count < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"the subscriber heard {tally.count} of {count}")
            time.sleep(0.05)
        return tally


@contextmanager
def listener() -> Iterator[Listener]:
    """Run a subscriber."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.subscriber", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield Listener(process, port)
    finally:
        process.terminate()
        process.wait(10)


def bare_rate(count: int) -> float:
    """Return how many posts a second bare aiohttp makes, 64 side by side."""
    with listener() as subscriber:
        uvloop.run(_post_all(f"{subscriber.base}/ok", count))
        return subscriber.heard(count).rate


async def _post_all(url: str, count: int) -> None:
    remaining = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=SIDE_BY_SIDE)) as session:

        async def post() -> None:
            for _ in remaining:
                async with session.post(url, data=BODY) as response:
                    await response.read()

        await asyncio.gather(*(post() for _ in range(SIDE_BY_SIDE)))


def our_rate(count: int) -> float:
    """Return how many deliveries a second one process makes and settles, of those that wait in the table."""
    with listener() as subscriber, tempfile.TemporaryDirectory() as folder:
        asyncio.run(_make_due(Path(folder), f"{subscriber.base}/ok", count))
        with serving("ringback", Path(folder)):
            return subscriber.heard(count).rate


async def _make_due(folder: Path, url: str, count: int) -> None:
    uids = await fill(folder, count)
    async with await Database.open(settings_for(folder)) as database:
        await subscribe(database, url)
        for first in range(0, len(uids), _AT_ONCE):
            keys = range(first + 1, min(first + _AT_ONCE, count) + 1)
            await database.writer.run(lambda tx, keys=keys: _insert_due(tx, keys))  # type: ignore[misc]


async def _insert_due(tx: Transaction, keys: range) -> None:
    now = utc_now()
    snapshot = {"status": "completed", "attempt": 1, "progress": 100}
    completed = EventType.TASK_COMPLETED
    common = {"organization_id": 1, "created_at": now}
    await tx.execute(
        insert(events),
        [
            {**common, "id": key, "uid": new_id(), "task_id": key, "type": completed, "snapshot": snapshot}
            for key in keys
        ],
    )
    due = {"subscription_id": 1, "status": DeliveryStatus.PENDING, "due_at": now}
    await tx.execute(
        insert(deliveries), [{**common, **due, "uid": new_id(), "event_id": key, "task_id": key} for key in keys]
    )


async def subscribe(database: Database, url: str) -> None:
    """Register a subscriber of everything that ends."""
    now = utc_now()
    row = {
        "uid": new_id(),
        "organization_id": 1,
        "endpoint_url": url,
        "event_types": ["task.completed"],
        "secret": KeyRing(KEYS).encrypt(new_secret()),
        "created_at": now,
        "updated_at": now,
    }

    async def work(tx: Transaction) -> None:
        await tx.execute(insert(subscriptions), [row])

    await database.writer.run(work)


def latencies(count: int, a_second: float, neighbours: tuple[str, ...] = ()) -> list[float]:
    """Return the seconds from each webhook to its subscriber, at so many a second, in order.

    `neighbours` are what other subscribers of the same events do: `/fail` or `/hang`.
    """
    with listener() as crowd, tempfile.TemporaryDirectory() as folder:
        return uvloop.run(
            _latencies(Path(folder), count, a_second, [f"{crowd.base}{neighbour}" for neighbour in neighbours])
        )


async def _latencies(folder: Path, count: int, a_second: float, neighbours: list[str]) -> list[float]:
    warm_up = int(a_second)
    uids = await fill(folder, count + warm_up)
    sent: dict[str, float] = {}
    heard: dict[str, float] = {}
    everything = asyncio.Event()

    async def told(request: Request) -> Response:
        moment = time.perf_counter()
        body = await request.body()
        at = body.find(b'"task_id":"')
        heard[body[at + 11 : at + 47].decode()] = moment
        if len(heard) == len(uids):
            everything.set()
        return Response(status_code=200)

    async with served(Starlette(routes=[Route("/told", told, methods=["POST"])])) as base:
        async with await Database.open(settings_for(folder)) as database:
            for url in [f"{base}/told", *neighbours]:
                await subscribe(database, url)
        with serving("ringback", folder) as port:
            await _paced(port, uids, a_second, sent)
            async with asyncio.timeout(30):
                await everything.wait()
    return [heard[uid] - sent[uid] for uid in uids[warm_up:]]


async def _paced(port: int, uids: list[str], a_second: float, sent: dict[str, float]) -> None:
    """Send a webhook each so many seconds, whether or not the one before was answered."""
    requests = [(uid, webhook(uid)) for uid in uids]
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
    start = time.perf_counter()
    for number, (uid, request) in enumerate(requests):
        await asyncio.sleep(max(0.0, start + number / a_second - time.perf_counter()))
        sent[uid] = time.perf_counter()
        connections[number % 8][1].write(request)
    for _, writer in connections:
        await writer.drain()
        writer.close()


def percentiles(values: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    return statistics.median(values) * 1000, statistics.quantiles(values, n=100)[98] * 1000
