"""A subscriber that sometimes fails receives every event in the end; subscribers that hang delay no other."""

import asyncio
from pathlib import Path

from starlette.requests import Request

from tests.acceptance.bulk_scenarios import create_and_verify, create_many, provider
from tests.fakes.rows import DELIVERIES, eventually
from tests.fakes.verified_subscribers import CALLBACK, PI, STANDARD, VerifiedSubscribers
from tests.fakes.world import in_processes

COUNT = 40


async def test_a_subscriber_that_sometimes_fails_receives_every_event_in_the_end(tmp_path: Path) -> None:
    # Of 200 deliveries one in three attempts fails: with six attempts one of them is given up in every few runs.
    async with in_processes(tmp_path, provider(), retry_schedule=",".join(["0", "0.1", "0.2", *["0.4"] * 15])) as world:
        world.subscriber.answer = lambda number, _request: 500 if number % 3 == 0 else 200
        await create_and_verify(world, COUNT)
        await eventually(world, DELIVERIES, lambda rows: all(row["status"] == "delivered" for row in rows))
        refused = [received for received in world.subscriber.received if received.status == 500]
        assert len(refused) > COUNT / 3
        accepted = {(received.path, received.event_id): received.body for received in world.subscriber.accepted}
        assert all(accepted[received.path, received.event_id] == received.body for received in refused)


async def test_a_subscriber_that_hangs_delays_no_other(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider(), delivery_timeout_seconds="30") as world:
        hanging = 0

        def answer(_number: int, request: Request) -> int | asyncio.Future[int]:
            nonlocal hanging
            if request.url.path in (STANDARD, PI, CALLBACK):
                return 200
            hanging += 1
            return asyncio.ensure_future(world.subscriber.hang())

        world.subscriber.answer = answer
        subscribers = await VerifiedSubscribers.register(world)
        await world.webhook(endpoint_url=f"{world.subscriber.base}/hangs", event_types=["task.*"])
        task_ids = await create_many(world, subscribers, COUNT)
        await subscribers.until_notified(task_ids, seconds=15)
        await subscribers.check(task_ids)
        assert hanging > 0
        assert not [received for received in world.subscriber.received if received.path == "/hangs"]


async def test_a_dozen_subscribers_that_hang_delay_no_other(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider(), delivery_timeout_seconds="30") as world:

        def answer(_number: int, request: Request) -> int | asyncio.Future[int]:
            hangs = request.url.path.startswith("/hangs")
            return asyncio.ensure_future(world.subscriber.hang()) if hangs else 200

        world.subscriber.answer = answer
        for number in range(12):
            await world.webhook(endpoint_url=f"{world.subscriber.base}/hangs/{number}", event_types=["task.*"])
        subscribers = await VerifiedSubscribers.register(world)
        task_ids = await create_many(world, subscribers, COUNT)
        await subscribers.until_notified(task_ids, seconds=15)
        await subscribers.check(task_ids)
