"""`kill -9` while a hundred deliveries are in flight: all arrive, and only those in flight arrive twice."""

import asyncio
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from starlette.requests import Request

from tests.fakes.inbound import SILENT
from tests.fakes.rows import DELIVERIES, Rows, eventually, select
from tests.fakes.subscriber import Reply
from tests.fakes.world import in_processes

pytestmark = pytest.mark.with_locks_too

PATHS = ("/one", "/two", "/three")
TASKS = 110
ACCEPTED = 40
"""How many deliveries each endpoint accepts before it holds all others."""
IN_FLIGHT = ACCEPTED + 4
"""What the endpoint's queue then allows in flight: it begins with 4 and allows one more with each success."""

Key = tuple[str, str]
"""Where a delivery went, and its `webhook-id`."""


class Holder:
    """Accepts `ACCEPTED` deliveries of each path and holds the others.

    It also holds the first one of each path, so that the queue of its endpoint stays in use and is not discarded.
    """

    def __init__(self) -> None:
        self.begun: Counter[Key] = Counter()
        self.bodies: defaultdict[Key, set[bytes]] = defaultdict(set)
        self.held: set[Key] = set()
        self.full = asyncio.Event()
        self.released = asyncio.Event()
        self._of_path: Counter[str] = Counter()

    async def answer(self, _number: int, request: Request) -> Reply:
        """Answer 200, or hold the request until the service that sent it is dead."""
        key = (request.url.path, request.headers["webhook-id"])
        self.begun[key] += 1
        self.bodies[key].add(await request.body())
        self._of_path[key[0]] += 1
        if self.released.is_set() or 1 < self._of_path[key[0]] <= ACCEPTED + 1:
            return 200
        self.held.add(key)
        if len(self.held) == len(PATHS) * IN_FLIGHT:
            self.full.set()
        await self.released.wait()
        return 503  # the service that sent the request is dead


def delivered(rows: Rows) -> int:
    return sum(row["status"] == "delivered" for row in rows)


async def test_after_a_kill_with_a_hundred_in_flight_all_arrive_and_only_those_arrive_twice(tmp_path: Path) -> None:
    async with in_processes(tmp_path, delivery_timeout_seconds="60") as world:
        holder = Holder()
        world.subscriber.answer = holder.answer
        for path in PATHS:
            await world.webhook(
                endpoint_url=world.subscriber.base + path, event_types=["task.created"], max_in_flight=100
            )
        task_ids = await asyncio.gather(*[world.created(SILENT) for _ in range(TASKS)])
        async with asyncio.timeout(30):
            await holder.full.wait()
        await eventually(world, DELIVERIES, lambda rows: delivered(rows) == len(PATHS) * ACCEPTED)
        await world.kill()
        in_flight = set(holder.held)
        assert len(in_flight) == len(PATHS) * IN_FLIGHT >= 100
        holder.released.set()

        await world.start()
        await eventually(world, DELIVERIES, lambda rows: delivered(rows) == len(rows), seconds=30)
        events = select(world, "SELECT uid FROM event WHERE type = 'task.created'")
        assert len(events) == len(set(task_ids)) == TASKS
        wanted = {(path, event["uid"]) for path in PATHS for event in events}
        assert {(received.path, received.event_id) for received in world.subscriber.accepted} == wanted
        assert holder.begun == {key: 2 if key in in_flight else 1 for key in wanted}
        assert all(len(bodies) == 1 for bodies in holder.bodies.values())
