"""One organization does what it can to delay another, whose tasks are delivered as if it were alone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request

import receiver.app
from receiver.domain.ids import new_id
from receiver.outbound import replays
from receiver.storage import writer
from receiver.storage.write_queue import HEAVY, weight_of
from receiver.workers import dispatch
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


@pytest.fixture
def weighed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The weights of all writes from now on that are heavy. No claim is, however slow the machine is."""
    weights: list[int] = []

    def note(items: int, size: int) -> int:
        weight = weight_of(items, size)
        if weight >= HEAVY:
            weights.append(weight)
        return weight

    monkeypatch.setattr(writer, "weight_of", note)
    monkeypatch.setattr(dispatch, "_LONG_CLAIM_SECONDS", 1e9)
    return weights


async def test_what_writes_many_rows_or_bytes_is_a_heavy_write(world: World, weighed: list[int]) -> None:
    large = {"prompt": "a cat " * 100_000}
    task = {"model": "m", "task_type": "t", "input": {}}
    await world.created()
    assert weighed == []
    await world.created(input=large)
    assert weighed.pop() > HEAVY
    for tasks in ([task] * HEAVY, [{**task, "input": large}]):
        assert (await world.api.post("/api/v1/tasks", json={"tasks": tasks})).status_code == 202
        assert weighed.pop() >= HEAVY
    steps = [{"id": "only", "action": "Qubico/flux1-schnell:txt2img", "input": large}]
    assert (await world.api.post("/api/v1/runs", json={"steps": steps})).status_code == 202
    assert weighed.pop() >= HEAVY
    assert weighed == []


async def test_a_replay_and_a_claim_that_takes_long_are_heavy_writes(
    world: World, weighed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = await world.webhook()
    add_events(world, HEAVY + 10)
    body = {"since": hours_ago(2)}
    await world.api.post(f"/api/v1/webhooks/{webhook['id']}/replay", json=body)
    await world.subscriber.until(lambda received: len(received) == HEAVY + 10)
    assert weighed == [HEAVY + 10]
    monkeypatch.setattr(dispatch, "_LONG_CLAIM_SECONDS", 0.0)
    await world.api.post(f"/api/v1/webhooks/{webhook['id']}/replay", json=body)
    await world.subscriber.until(lambda received: len(received) == 2 * (HEAVY + 10))
    assert HEAVY in weighed


async def test_the_limits_of_all_webhooks_hold_however_many_are_read_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_LIMITS_AT_ONCE", 2)
    for number in range(5):
        await world.webhook(
            endpoint_url=f"{world.subscriber.base}/{number}", event_types=["task.created"], rate_limit=0.001
        )
    for _ in range(2):
        await world.created()
    paths = [f"/{number}" for number in range(5)]
    await world.subscriber.until(lambda received: {each.path for each in received} == set(paths))
    assert sorted(each.path for each in world.subscriber.received) == paths, "each has sent what it may"
