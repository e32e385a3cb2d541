"""A process that was frozen past its lease sends nothing under it when it wakes.

For a lease, being frozen is that the time passes between two steps of the process, so here the service's clock is put
forward between two steps.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer

from receiver.clock import SERVICE_CLOCK, utc_now
from receiver.http_client.connection import Connection
from receiver.http_client.origin import Origin
from receiver.http_client.pool import ConnectionPool
from receiver.lease_check import LeaseEnded, SendLease, under
from receiver.outbound.deliver import Deliverer
from receiver.outbound.guard import AddressGuard
from receiver.outbound.sender import Sender
from receiver.providers.piapi.calls import Calls
from receiver.telemetry.metrics import sent_without_lease
from tests.fakes.inbound import report
from tests.fakes.rows import DELIVERIES, eventually
from tests.fakes.world import World, in_process

FROZEN_SECONDS = 300.0
"""Longer than every lease, and shorter than the search for a create call whose answer was lost."""
PICTURE = {"image_url": "https://example.com/i.png"}


@pytest.fixture(autouse=True)
def right_clock() -> Iterator[None]:
    """Set the service's clock right again."""
    yield
    SERVICE_CLOCK.set(time.time())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with in_process(tmp_path) as world:
        yield world


def freeze() -> None:
    SERVICE_CLOCK.set(SERVICE_CLOCK.now() + FROZEN_SECONDS)


def frozen_once(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch, *, after: bool = False) -> None:
    """Freeze the process at the first call of an async method: before its first step, or after its last."""
    method, freezes = getattr(owner, name), iter([freeze])

    async def call(*arguments: Any, **named: Any) -> Any:
        frozen: Callable[[], None] = next(freezes, lambda: None)
        if not after:
            frozen()
        result = await method(*arguments, **named)
        if after:
            frozen()
        return result

    monkeypatch.setattr(owner, name, call)


def frozen_when_a_connection_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freeze the process when a kept connection has been chosen, right before the request is written to it."""
    take, freezes = ConnectionPool.take, iter([freeze])

    def take_and_freeze(pool: ConnectionPool, origin: Origin) -> Connection | None:
        connection = take(pool, origin)
        assert connection is not None
        next(freezes, lambda: None)()
        return connection

    monkeypatch.setattr(ConnectionPool, "take", take_and_freeze)


class FreezingGuard(AddressGuard):
    """A guard with which the process is frozen while it resolves a name: in the middle of opening a connection."""

    def resolver(self, scheme: str = "https") -> AbstractResolver:
        class Resolver(AbstractResolver):
            async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
                freeze()
                return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=2, proto=0, flags=0)]

            async def close(self) -> None:
                return

        return Resolver()


@asynccontextmanager
async def numbers_received() -> AsyncIterator[tuple[str, list[str]]]:
    """Serve what notes the header `number` of each request; yield its URL, and what it has noted."""
    received = []

    async def answer(request: web.Request) -> web.Response:
        received.append(request.headers["number"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/", answer)
    async with TestServer(app) as server:
        yield f"http://localhost:{server.port}/", received


@pytest.mark.no_database("it sends what it is given")
async def test_a_request_is_not_written_when_its_lease_ended_while_the_connection_was_opened() -> None:
    async with numbers_received() as (url, received), Sender(FreezingGuard(allow_private=True), timeout=10) as sender:
        with pytest.raises(LeaseEnded), under(SendLease(utc_now() + timedelta(seconds=FROZEN_SECONDS))):
            await sender.send(url, {"number": "1"}, b"{}")
        assert (await sender.send(url, {"number": "2"}, b"{}")).ok
        with under(SendLease(utc_now() + timedelta(seconds=2 * FROZEN_SECONDS))):
            assert (await sender.send(url, {"number": "3"}, b"{}")).ok
    assert received == ["2", "3"]


@pytest.mark.no_database("it sends what it is given")
@pytest.mark.parametrize("size", [2, 2_000_000])
async def test_a_request_is_not_written_when_its_lease_ended_after_the_connection_was_chosen(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with numbers_received() as (url, received), Sender(AddressGuard(allow_private=True), timeout=10) as sender:
        assert (await sender.send(url, {"number": "1"}, b"{}")).ok
        frozen_when_a_connection_was_taken(monkeypatch)
        with pytest.raises(LeaseEnded), under(SendLease(utc_now() + timedelta(seconds=FROZEN_SECONDS))):
            await sender.send(url, {"number": "2"}, b" " * size)
        assert (await sender.send(url, {"number": "3"}, b"{}")).ok
    assert received == ["1", "3"]


async def test_an_ordered_delivery_whose_lease_ended_is_sent_once_and_in_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.webhook(ordered=True, event_types=["task.*"])
    task_id = await world.created({"outcome": "never", "webhook": "lost"})
    await world.subscriber.until(lambda received: len(received) == 2)
    frozen_once(Deliverer, "_send", monkeypatch)
    await report(world, task_id, "processing", output={"percent": 20})
    await report(world, task_id, "completed", output=PICTURE)
    rows = await eventually(world, DELIVERIES, lambda rows: len(rows) == 4 and all(row["settled_at"] for row in rows))
    assert [(row["status"], row["attempt"]) for row in rows] == [("delivered", number) for number in (1, 1, 2, 1)]
    received = [each.json["type"] for each in world.subscriber.received]
    assert received == ["task.created", "task.submitted", "task.updated", "task.completed"]


@pytest.mark.parametrize(("owner", "step", "after"), [(Calls, "_exchange", False), (ConnectionPool, "acquire", True)])
async def test_a_create_call_is_not_made_without_its_lease_and_is_made_later(
    world: World, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str, after: bool
) -> None:
    without_lease = sent_without_lease.labels("create")._value
    before = without_lease.get()
    frozen_once(owner, step, monkeypatch, after=after)
    task = await world.ended(await world.created())
    assert (task["status"], task["attempt"]) == ("completed", 1)
    assert without_lease.get() == before
    stats = await world.provider_stats()
    assert (stats["requests"]["POST /api/v1/task"], stats["created"]) == (1, 1)


async def test_a_send_that_outlasts_its_lease_is_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [sent_without_lease.labels(what)._value.get() for what in ("create", "delivery")]
    frozen_once(Calls, "_exchange", monkeypatch, after=True)
    task = await world.ended(await world.created())
    assert (task["status"], (await world.provider_stats())["created"]) == ("completed", 1)
    await world.webhook()
    frozen_once(Deliverer, "_send", monkeypatch, after=True)
    await world.ended(await world.created())
    async with asyncio.timeout(20):
        while [sent_without_lease.labels(what)._value.get() for what in ("create", "delivery")] != [
            count + 1 for count in before
        ]:
            await world.api.get("/readyz")
