"""`kill -9` of one of two replicas under load: the other finishes everything."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.replicas import SENT_TWICE, Replica, replicas
from tests.faults.load import PROVIDER, SETTINGS, under_load

pytestmark = [
    pytest.mark.postgresql_only("SQLite has one process"),
    pytest.mark.with_locks_too,
    pytest.mark.long,
]

HELD_CREATES = 4
HELD_DELIVERIES = 6


async def test_after_a_kill_of_one_of_two_the_other_finishes_everything(tmp_path: Path) -> None:
    async with replicas(tmp_path, PROVIDER, **SETTINGS) as pair:
        killed = pair.each[0]
        async with under_load(pair.world, pair.each) as (load, listener):
            await load.more(40)
            async with requests_in_flight(killed):
                await killed.kill()
            await load.more(20)
        assert listener.times == 2


async def test_a_create_that_another_replica_answers_after_a_kill_is_not_sent_by_that_one(tmp_path: Path) -> None:
    """The balancer repeats the request, which has a key, and its task ends as one that may have been sent."""
    async with replicas(tmp_path, PROVIDER, **SETTINGS) as pair:
        await pair.each[0].kill()
        await pair.each[0].start(crash="before_the_call_to_the_provider")
        body = {"model": "flux", "task_type": "txt2img", "input": {}}
        answer = await pair.world.api.post("/api/v1/task", json=body, headers={"idempotency-key": "one"})
        assert (answer.status_code, answer.headers[SENT_TWICE]) == (200, "true")
        task = await pair.world.ended(answer.json()["data"]["task_id"], seconds=30)
        assert task["error"]["code"] == "submission_unknown"
        assert (await pair.world.provider_stats())["created"] == 0


@asynccontextmanager
async def requests_in_flight(replica: Replica) -> AsyncIterator[None]:
    """Hold responses to a replica until the context ends: subscribers' to deliveries, and the provider's to creates.

    Both replicas share the subscribers, so the other replica's deliveries are held too.
    """
    held, released = asyncio.Semaphore(0), asyncio.Event()

    async def hold() -> int:
        held.release()
        await released.wait()
        return 503

    replica.subscriber.answer = lambda _number, _request: hold()
    async with asyncio.timeout(10):
        for _ in range(HELD_DELIVERIES):
            await held.acquire()
        creating = [
            asyncio.create_task(replica.create({"submit": "hang", "hang_seconds": 60}, model="held"))
            for _ in range(HELD_CREATES)
        ]
        while await replica.made("held") < HELD_CREATES:
            pass
    yield
    replica.subscriber.answer = lambda _number, _request: 200
    released.set()
    await asyncio.gather(*creating, return_exceptions=True)
