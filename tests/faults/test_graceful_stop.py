"""SIGTERM: work in progress is finished within a bound; work that has not begun is done after the next start."""

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import Request

from tests.fakes.rows import DELIVERIES, eventually, select
from tests.fakes.world import FAST_POLLING, ProcessWorld, in_processes

COUNT = 80
BOUND_SECONDS = 15.0
LATE = 4
"""The exit status of a process that was ended at the bound of its stop, as on a machine that is very busy."""


async def stopped(world: ProcessWorld) -> int:
    """Send SIGTERM; return the exit status. Raises TimeoutError."""
    async with asyncio.timeout(BOUND_SECONDS):
        return await world.stop()


async def test_deliveries_in_flight_are_finished_and_the_others_are_sent_after_the_next_start(tmp_path: Path) -> None:
    async with in_processes(tmp_path, **FAST_POLLING) as world:
        gate, in_flight = asyncio.Event(), asyncio.Event()

        async def answer_at_the_gate() -> int:
            in_flight.set()
            await gate.wait()
            return 200

        world.subscriber.answer = lambda _number, _request: answer_at_the_gate()
        await world.webhook()
        task_ids = await asyncio.gather(*(world.created() for _ in range(COUNT)))
        await happens(in_flight)
        stopping = asyncio.create_task(stopped(world))
        gate.set()
        status = await stopping
        leased = "SELECT uid FROM delivery WHERE leased UNION SELECT uid FROM task WHERE leased"
        assert not select(world, leased)
        await world.start()
        await asyncio.gather(*(world.ended(task_id) for task_id in task_ids))
        await world.subscriber.until(lambda received: len({each.event_id for each in received}) == COUNT)
        assert max(Counter(received.event_id for received in world.subscriber.received).values()) == 1
        assert status == 0, world.log()


async def test_creates_in_progress_are_answered(tmp_path: Path) -> None:
    async with in_processes(tmp_path, **FAST_POLLING) as world:
        slow = {"submit": "hang", "hang_seconds": 1.0}
        creating = [asyncio.create_task(world.created(slow, input={"prompt": str(number)})) for number in range(10)]
        await created_at_the_provider(world, 10)
        status = await stopped(world)
        task_ids = await asyncio.gather(*creating)
        assert {row["submission"] for row in select(world, "SELECT submission FROM task")} == {"accepted"}
        await world.start()
        for task_id in task_ids:
            assert (await world.ended(task_id))["status"] == "completed"
        assert (await world.provider_stats())["created"] == 10
        assert status == 0, world.log()


async def test_a_long_poll_in_progress_is_answered(tmp_path: Path) -> None:
    async with in_processes(tmp_path) as world:
        task_id = await world.created({"outcome": "never"})
        query = "wait_for_completion=true&timeout_seconds=2"
        polling = asyncio.create_task(world.api.get(f"/api/v1/task/{task_id}?{query}"))
        await world.task(task_id)
        status = await stopped(world)
        assert (await polling).status_code == 200
        assert status == 0, world.log()


def let_hang(world: ProcessWorld) -> asyncio.Event:
    """Let the subscriber answer no request; return the event of its first one."""
    hanging = asyncio.Event()

    def hang(_number: int, _request: Request) -> asyncio.Future[int]:
        hanging.set()
        return asyncio.ensure_future(world.subscriber.hang())

    world.subscriber.answer = hang
    return hanging


async def test_a_subscriber_that_hangs_does_not_delay_the_stop(tmp_path: Path) -> None:
    async with in_processes(tmp_path, delivery_timeout_seconds="1.5", **FAST_POLLING) as world:
        hanging = let_hang(world)
        await world.webhook()
        task_id = await world.created()
        await happens(hanging)
        status = await stopped(world)
        world.subscriber.answer = lambda _number, _request: 200
        await world.start()
        await world.subscriber.until(lambda received: received)
        assert world.subscriber.received[0].json["data"]["task_id"] == task_id
        await eventually(world, DELIVERIES, lambda rows: rows[0]["status"] == "delivered")
        assert status == 0, world.log()


async def test_a_provider_and_a_subscriber_that_hang_do_not_hold_a_stop_beyond_its_bound(tmp_path: Path) -> None:
    async with in_processes(tmp_path, stop_seconds="1.5", submit_wait_seconds="0", **FAST_POLLING) as world:
        hanging = let_hang(world)
        await world.webhook()
        task_id = await world.created()
        await happens(hanging)
        await world.created({"submit": "hang", "hang_seconds": 600})
        await created_at_the_provider(world, 2)
        assert await stopped(world) in (0, LATE), world.log()
        world.subscriber.answer = lambda _number, _request: 200
        await world.start()
        await world.subscriber.until(lambda received: task_id in {each.json["data"]["task_id"] for each in received})


async def test_while_the_lame_duck_lasts_all_is_served_and_readiness_says_no(tmp_path: Path) -> None:
    own = tmp_path / "metrics.sock"
    seconds: dict[str, Any] = {"stop_seconds": "900", "lame_duck_seconds": "600", "metrics_address": str(own)}
    async with in_processes(tmp_path, **seconds, **FAST_POLLING) as world:
        assert world.process is not None
        world.process.send_signal(signal.SIGTERM)
        transport = httpx.AsyncHTTPTransport(uds=str(own))
        async with httpx.AsyncClient(base_url="http://metrics", transport=transport) as metrics:
            for probe in (world.api, metrics):
                while (answer := await probe.get("/readyz")).status_code == 200:
                    pass
                assert (answer.status_code, answer.json()["reason"]) == (503, "the service is stopping")
        async with httpx.AsyncClient(base_url=world.base, headers=world.api.headers) as another:
            answer = await another.get("/api/v1/tasks")
            assert (answer.status_code, answer.headers.get("connection")) == (200, None)
        task_id = await world.created()
        assert (await world.ended(task_id))["status"] == "completed"  # a long poll is not ended
        assert await stopped(world) == 0, world.log()


async def test_an_open_connection_reads_at_once_that_the_service_is_not_ready(tmp_path: Path) -> None:
    async with in_processes(tmp_path, **FAST_POLLING) as world:
        creating = asyncio.create_task(world.created({"submit": "hang", "hang_seconds": 1.0}))
        await created_at_the_provider(world, 1)
        async with httpx.AsyncClient(base_url=world.base, limits=httpx.Limits(max_connections=1)) as probe:
            assert (await probe.get("/readyz")).status_code == 200
            stopping = asyncio.create_task(stopped(world))
            while (answer := await probe.get("/readyz")).status_code == 200:
                pass
            while answer.headers.get("connection") != "close":
                assert (answer.status_code, answer.json()["reason"]) == (503, "the service is stopping")
                answer = await probe.get("/readyz")
        assert answer.status_code == 503
        await creating
        assert await stopping == 0, world.log()


async def happens(event: asyncio.Event) -> None:
    """Wait for an event. Raises TimeoutError."""
    async with asyncio.timeout(10):
        await event.wait()


async def created_at_the_provider(world: ProcessWorld, count: int) -> None:
    """Wait until the provider has `count` tasks. Raises TimeoutError."""
    async with asyncio.timeout(10):
        while (await world.provider_stats())["created"] < count:
            pass
