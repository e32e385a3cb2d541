"""Limits of a subscription: ordered events per task, concurrent attempts, and attempts per second."""

import asyncio
import time
from collections import Counter
from pathlib import Path

from starlette.requests import Request

from tests.fakes.inbound import report
from tests.fakes.rows import DELIVERIES, eventually
from tests.fakes.subscriber import ReceivedDelivery, Reply
from tests.fakes.world import World, in_process

BY_HAND = {"outcome": "never", "webhook": "lost"}
PICTURE = {"image_url": "https://example.com/i.png"}
OFTEN = ",".join(["0", *["0.1"] * 50])
STEPS = (20, 40, 60)
LIFE = ["task.created", "task.submitted", *["task.updated"] * len(STEPS), "task.completed"]


class RecordingSubscriber:
    """Responds, and records the start of each request and its response, as (webhook-id, status or None)."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int | None]] = []
        self.times: Counter[str] = Counter()

    async def answer(self, _number: int, request: Request) -> Reply:
        """Refuse every second event at its first attempt, and every fourth at its second too."""
        event_id = request.headers["webhook-id"]
        self.log.append((event_id, None))
        self.times[event_id] += 1
        place = list(self.times).index(event_id)
        refusals = 2 if place % 4 == 0 else 1 if place % 2 == 0 else 0
        status = 500 if self.times[event_id] <= refusals else 200
        self.log.append((event_id, status))
        return status


async def live(world: World, task_id: str) -> None:
    """Report progress of the task, and its end."""
    for percent in STEPS:
        answer = await report(world, task_id, "processing", output={"percent": percent})
        assert answer.status_code == 200, answer.text
    await report(world, task_id, "completed", output=PICTURE)


async def all_settled(world: World, tasks: int) -> None:
    """Wait until all deliveries of `count` tasks are settled."""
    await eventually(
        world,
        DELIVERIES,
        lambda rows: len(rows) >= tasks * len(LIFE) and all(row["settled_at"] for row in rows),
        seconds=30,
    )


async def history(world: World, task_id: str) -> list[str]:
    """Return the ids of a task's events in order of their sequence."""
    events = sorted(await world.events(task_id), key=lambda event: int(event["sequence"]))
    assert [event["type"] for event in events] == LIFE
    return [event["id"] for event in events]


async def test_each_task_s_events_arrive_in_order_although_some_are_refused_at_first(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule=OFTEN) as world:
        doorkeeper = RecordingSubscriber()
        world.subscriber.answer = doorkeeper.answer
        await world.webhook(event_types=["task.*"], ordered=True)
        task_ids = await asyncio.gather(*[world.created(BY_HAND) for _ in range(6)])
        await asyncio.gather(*[live(world, task_id) for task_id in task_ids])
        await all_settled(world, len(task_ids))
        assert len([status for _, status in doorkeeper.log if status == 500]) >= len(task_ids)
        for task_id in task_ids:
            expected = await history(world, task_id)
            mine = [(event_id, status) for event_id, status in doorkeeper.log if event_id in expected]
            assert [event_id for event_id, status in mine if status == 200] == expected
            # Request, answer, request, answer: the next event's first request follows the 200 of the one before.
            exchanges = [each for event_id in expected for each in [event_id] * doorkeeper.times[event_id]]
            assert [event_id for event_id, status in mine if status is None] == exchanges
            assert [status is None for _, status in mine] == [True, False] * len(exchanges)


async def test_an_event_without_a_response_delays_only_its_own_task(world: World) -> None:
    gate, held = asyncio.Event(), asyncio.Event()
    first = ""

    async def answer(_number: int, request: Request) -> Reply:
        nonlocal first
        first = first or request.headers["webhook-id"]
        if request.headers["webhook-id"] == first:
            held.set()
            await gate.wait()
        return 200

    world.subscriber.answer = answer
    await world.webhook(event_types=["task.*"], ordered=True)
    slow = await world.created(BY_HAND)
    await held.wait()
    quick = await world.created(BY_HAND)
    await asyncio.gather(live(world, slow), live(world, quick))
    await world.subscriber.until(lambda received: len(received) >= len(LIFE))
    assert [received.event_id for received in world.subscriber.of(quick)] == await history(world, quick)
    assert world.subscriber.of(slow) == []
    gate.set()
    await world.subscriber.until(lambda received: len(received) >= 2 * len(LIFE))
    assert [received.event_id for received in world.subscriber.of(slow)] == await history(world, slow)


async def test_a_refused_event_delays_only_its_own_task(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule=OFTEN) as world:
        refused = ""
        passes = asyncio.Event()

        def answer(_number: int, request: Request) -> Reply:
            nonlocal refused
            refused = refused or request.headers["webhook-id"]
            return 500 if request.headers["webhook-id"] == refused and not passes.is_set() else 200

        world.subscriber.answer = answer
        await world.webhook(event_types=["task.*"], ordered=True)
        slow = await world.created(BY_HAND)
        await world.subscriber.until(lambda received: received)
        quick = await world.created(BY_HAND)
        await asyncio.gather(live(world, slow), live(world, quick))
        await world.subscriber.until(lambda _heard: len(world.subscriber.of(quick)) >= len(LIFE))
        assert {received.event_id for received in world.subscriber.of(slow)} == {refused}
        passes.set()
        await all_settled(world, 2)
        for task_id in (slow, quick):
            accepted = [received.event_id for received in world.subscriber.of(task_id) if received.status == 200]
            assert accepted == await history(world, task_id)


async def test_after_a_dead_delivery_the_next_is_sent(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule="0,0.1") as world:

        async def answer(_number: int, request: Request) -> Reply:
            return 500 if b'"task.created"' in await request.body() else 200

        world.subscriber.answer = answer
        await world.webhook(event_types=["task.*"], ordered=True)
        task_id = await world.created(BY_HAND)
        await live(world, task_id)
        await all_settled(world, 1)
        first, *others = await history(world, task_id)
        received: list[ReceivedDelivery] = world.subscriber.received
        assert [(each.event_id, each.status) for each in received] == [
            (first, 500),
            (first, 500),
            *[(event_id, 200) for event_id in others],
        ]
        rows = await eventually(world, DELIVERIES, bool)
        assert [row["status"] for row in rows] == ["dead", *["delivered"] * len(others)]


async def test_no_more_deliveries_are_in_flight_than_the_subscription_allows(world: World) -> None:
    count = 12
    opened: Counter[str] = Counter()
    most: Counter[str] = Counter()
    side_by_side, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_number: int, request: Request) -> Reply:
        path = request.url.path
        opened[path] += 1
        most[path] = max(most[path], opened[path])
        if path == "/free":
            if opened[path] == 2:
                side_by_side.set()
            await side_by_side.wait()
        else:
            await go_on.wait()
            await world.api.get("/readyz")  # long enough for another one to come, were it allowed
        opened[path] -= 1
        return 200

    world.subscriber.answer = answer
    await world.webhook(endpoint_url=f"{world.subscriber.base}/single", event_types=["task.created"], max_in_flight=1)
    await world.webhook(endpoint_url=f"{world.subscriber.base}/free", event_types=["task.created"])
    await asyncio.gather(*[world.created(BY_HAND) for _ in range(count)])
    await world.subscriber.until(lambda received: len(received) >= count)
    assert opened["/single"] == 1
    go_on.set()
    await world.subscriber.until(lambda received: len(received) >= 2 * count)
    assert most["/single"] == 1
    assert most["/free"] >= 2


async def test_no_more_deliveries_per_second_are_started_than_the_subscription_allows(world: World) -> None:
    count, rate = 20, 20
    received_at: list[float] = []

    def answer(_number: int, _request: Request) -> Reply:
        received_at.append(time.monotonic())
        return 200

    world.subscriber.answer = answer
    await world.webhook(event_types=["task.created"], rate_limit=rate)
    began = time.monotonic()
    await asyncio.gather(*[world.created(BY_HAND) for _ in range(count)])
    await world.subscriber.until(lambda received: len(received) >= count)
    # Counted from before the first, not from its arrival: any of them may arrive late, and none may arrive early.
    assert [at for number, at in enumerate(received_at) if at < began + number / rate] == []
