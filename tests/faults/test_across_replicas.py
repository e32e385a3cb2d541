"""Two replicas without any fault: what happens at one is known at the other."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

import pytest
import pytest_asyncio

from tests.fakes.inbound import PICTURE, SILENT, report
from tests.fakes.reader import reading
from tests.fakes.replicas import Replicas, replicas
from tests.faults.load import PROVIDER, SETTINGS, Listener, Load, every_sequence

pytestmark = [pytest.mark.postgresql_only("SQLite has one process"), pytest.mark.asyncio(loop_scope="module")]

SOON_SECONDS = 0.25
"""A replica that was not notified would read the database itself after up to 1 s."""
REVOKED_SECONDS = 2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Replicas]:
    """Two replicas that all tests of this module share."""
    folder: Path = tmp_path_factory.mktemp("pair")
    async with replicas(folder, PROVIDER, **SETTINGS) as pair:
        yield pair


async def test_a_long_poll_at_one_returns_soon_after_a_webhook_at_the_other(pair: Replicas) -> None:
    one, two = pair.each
    query = {"wait_for_completion": "true", "timeout_seconds": "30"}

    async def poll(task_id: str) -> float:
        answer = await two.api.get(f"/api/v1/task/{task_id}", params=query)
        assert answer.json()["data"]["status"] == "completed"
        return time.monotonic()

    task_ids = [await one.created(SILENT) for _ in range(15)]
    polls = [asyncio.create_task(poll(task_id)) for task_id in task_ids]
    delays = []
    for task_id, polling in zip(task_ids, polls, strict=True):
        assert (await report(one, task_id, "completed", output=PICTURE)).status_code == 200
        acknowledged = time.monotonic()
        delays.append(await polling - acknowledged)
    assert median(delays) < SOON_SECONDS, delays


async def test_the_streams_of_both_show_the_events_of_both_once_and_in_order(pair: Replicas) -> None:
    load, listeners = Load(pair.world), [Listener([replica]) for replica in pair.each]
    async with listeners[0].listening(), listeners[1].listening():
        async with load.running():
            await load.more(80)
        await load.waited()
        for listener in listeners:
            await listener.saw(every_sequence(pair.world))
            assert listener.times == 1


async def test_a_webhook_registered_at_one_receives_events_of_the_other(pair: Replicas) -> None:
    one, two = pair.each
    url = f"{pair.world.subscriber.base}/registered-at-one"
    await one.webhook(endpoint_url=url, event_types=["task.created"])
    task_id = await two.created(SILENT)
    await pair.world.subscriber.until(
        lambda received: any(
            each.path == "/registered-at-one" and each.json["data"]["task_id"] == task_id for each in received
        )
    )


async def test_a_key_revoked_at_one_ends_with_all_that_it_holds_at_the_other(pair: Replicas) -> None:
    one, two = pair.each
    created = (await one.api.post("/api/v1/keys", json={"name": "brief", "scope": "read"})).json()["data"]
    headers = {"x-api-key": created["key"]}
    task_id = await one.created(SILENT)
    query = {"wait_for_completion": "true", "timeout_seconds": "30"}

    async def status() -> int:
        return (await two.api.get("/api/v1/tasks", headers=headers)).status_code

    assert await status() == 200
    async with reading(two, key=created["key"]) as stream:
        polling = asyncio.create_task(two.api.get(f"/api/v1/tasks/{task_id}", params=query, headers=headers))
        assert (await one.api.delete(f"/api/v1/keys/{created['id']}")).status_code == 200
        async with asyncio.timeout(REVOKED_SECONDS):
            await stream.end()
            assert (await polling).status_code == 401
            while (now := await status()) == 200:
                pass
    assert now == 401
