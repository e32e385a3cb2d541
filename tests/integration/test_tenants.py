"""One organization does what it can to delay another, whose tasks are delivered as if it were alone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request

import receiver.app
from receiver.domain.ids import new_id
from receiver.outbound import replays
from tests.fakes.organizations import another_organization
from tests.fakes.past_events import add_events, hours_ago
from tests.fakes.ports import free_port
from tests.fakes.rows import change, select
from tests.fakes.world import World, in_process

CONNECTIONS = 40
_COPIED = "organization_id, kind, format, event_types, secret, signature, ordered, is_active, created_at, updated_at"


async def add_webhooks(world: World, headers: dict[str, str], urls: list[str]) -> None:
    """Register the first URL as a webhook, and insert the others as copies of it."""
    body = {"endpoint_url": urls[0], "event_types": ["task.*"]}
    answer = await world.api.post("/api/v1/webhooks", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    uid = answer.json()["data"]["id"]
    for url in urls[1:]:
        change(
            world,
            f"INSERT INTO subscription (uid, endpoint_url, {_COPIED}) "
            f"SELECT ?, ?, {_COPIED} FROM subscription WHERE uid = ?",
            *(new_id(), url, uid),
        )


async def test_webhooks_that_hang_or_are_closed_delay_no_other_organization(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver.app, "_CONNECTIONS", CONNECTIONS)
    hanging = asyncio.Semaphore(0)

    async with in_process(tmp_path, delivery_timeout_seconds="30") as world:

        def answer(_number: int, request: Request) -> int | asyncio.Future[int]:
            if not request.url.path.startswith("/hangs"):
                return 200
            hanging.release()
            return asyncio.ensure_future(world.subscriber.hang())

        world.subscriber.answer = answer
        theirs = another_organization(world)
        await add_webhooks(world, theirs, [f"{world.subscriber.base}/hangs/{number}" for number in range(60)])
        await add_webhooks(world, theirs, [f"http://127.0.0.1:{free_port()}/{number}" for number in range(120)])
        task = {"model": "m", "task_type": "t", "input": {}}
        for _ in range(3):
            assert (await world.api.post("/api/v1/task", json=task, headers=theirs)).status_code == 200
        async with asyncio.timeout(20):
            for _ in range(CONNECTIONS // 2):
                await hanging.acquire()
        await world.webhook(event_types=["task.completed"])
        ours = [await world.created() for _ in range(5)]
        # Without shares all connections are held for the 30 seconds that the others' endpoints hang.
        await world.subscriber.until(lambda _: all(world.subscriber.of(each) for each in ours), seconds=15)
        assert hanging.locked(), "no more than half of the connections were held"
        world.subscriber.closing.set()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with in_process(tmp_path) as world:
        yield world


async def test_replays_of_one_webhook_share_what_may_be_pending(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "BATCH", 10)
    monkeypatch.setattr(replays, "MOST_PENDING", 20)
    add_events(world, 60)
    world.subscriber.answer = lambda _number, request: world.subscriber.hang() if request.url.path == "/hangs" else 200
    hangs = await world.webhook(endpoint_url=f"{world.subscriber.base}/hangs")
    works = await world.webhook()
    for webhook in (hangs, hangs, hangs, hangs, works):
        body = {"since": hours_ago(2)}
        answer = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/replay", json=body)
        assert answer.status_code == 202, answer.text
    await world.subscriber.until(lambda received: sum(each.path != "/hangs" for each in received) == 60)
    pending = (
        "SELECT count(*) AS count FROM delivery d JOIN subscription s ON s.id = d.subscription_id "
        "WHERE d.status = 'pending' AND s.endpoint_url LIKE '%/hangs'"
    )
    assert select(world, pending) == [{"count": 20}]
    world.subscriber.closing.set()
