"""Endpoints that are disabled because they returned 410 or keep failing, and the event that reports it."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from tests.fakes.rows import ATTEMPTS, DELIVERIES, Rows, change, eventually, select
from tests.fakes.subscriber import ReceivedDelivery, Reply
from tests.fakes.world import World, in_process

BY_HAND = {"outcome": "never", "webhook": "lost"}
OTHERS = "/others"
OFTEN = ",".join(["0", *["0.1"] * 50])
ONCE = "0,3600"


async def register_watcher(world: World) -> dict[str, Any]:
    """Register a webhook that receives the event when another one is disabled."""
    return await world.webhook(endpoint_url=world.subscriber.base + OTHERS, event_types=["webhook.disabled"])


def notices(received: list[ReceivedDelivery]) -> list[Any]:
    return [each.json for each in received if each.path == OTHERS]


async def current(world: World, webhook: dict[str, Any]) -> dict[str, Any]:
    answer = await world.api.get(f"/api/v1/webhooks/{webhook['id']}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def activate(world: World, webhook: dict[str, Any]) -> None:
    answer = await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"is_active": True})
    assert answer.status_code == 200, answer.text
    found = await current(world, webhook)
    assert (found["is_active"], found["disabled_reason"], found["failing_since"]) == (True, None, None)


def fails_since(world: World, days: float, kind: str = "registered") -> None:
    moment = (datetime.now(UTC) - timedelta(days=days)).replace(tzinfo=None).isoformat(" ", "microseconds")
    change(world, "UPDATE subscription SET failing_since = ? WHERE kind = ?", moment, kind)


async def test_an_endpoint_that_returns_410_is_disabled_at_once_and_gets_pending_deliveries_when_activated(
    world: World,
) -> None:
    leaving, back = asyncio.Event(), asyncio.Event()

    async def answer(_number: int, request: Request) -> Reply:
        if request.url.path == OTHERS or back.is_set():
            return 200
        await leaving.wait()
        return 410

    world.subscriber.answer = answer
    await register_watcher(world)
    leaver = await world.webhook(event_types=["task.created", "webhook.disabled"], max_in_flight=1)
    task_ids = {await world.created(BY_HAND) for _ in range(5)}
    await eventually(world, DELIVERIES, lambda rows: len(rows) == len(task_ids))
    leaving.set()
    await world.subscriber.until(notices)
    found = await current(world, leaver)
    assert (found["is_active"], found["disabled_reason"]) == (False, "gone")
    (notice,) = notices(world.subscriber.received)
    assert notice["type"] == "webhook.disabled"
    assert notice["data"]["reason"] == "gone"
    told = notice["data"]["webhook"]
    assert (told["id"], told["endpoint_url"]) == (leaver["id"], world.subscriber.url)
    assert (told["is_active"], told["disabled_reason"]) == (False, "gone")

    def kept(rows: Rows) -> bool:
        mine = [row for row in rows if row["webhook"] == leaver["id"]]
        return len(mine) == len(task_ids) and all((row["status"], row["due_at"]) == ("pending", None) for row in mine)

    await eventually(world, DELIVERIES, kept)
    assert {
        received.json["data"]["task_id"] for received in world.subscriber.accepted if received.path == "/told"
    } == set()
    back.set()
    await activate(world, leaver)
    await world.subscriber.until(lambda received: len(received) - len(notices(received)) >= len(task_ids) + 1)
    await eventually(world, DELIVERIES, lambda rows: all(row["status"] == "delivered" for row in rows))
    accepted = [received.json for received in world.subscriber.accepted if received.path == "/told"]
    assert {each["type"] for each in accepted} == {"task.created"}
    assert sorted(each["data"]["task_id"] for each in accepted) == sorted(task_ids)
    assert len(notices(world.subscriber.received)) == 1


async def test_an_endpoint_that_returned_410_gets_no_request_until_it_is_activated(world: World) -> None:
    world.subscriber.answer = lambda _number, request: 200 if request.url.path == OTHERS else 410
    await register_watcher(world)
    leaver = await world.webhook(event_types=["task.created"])
    await world.created(BY_HAND)
    await world.subscriber.until(notices)
    later = await world.created(BY_HAND)
    await eventually(world, DELIVERIES, lambda rows: all(row["due_at"] is None for row in rows))
    assert [received.status for received in world.subscriber.received if received.path == "/told"] == [410]
    world.subscriber.answer = lambda _number, _request: 200
    await activate(world, leaver)
    await world.subscriber.until(lambda received: len(received) >= 3)
    assert world.subscriber.of(later) == [], "what happened while it was off is for a replay"


async def test_an_endpoint_that_returned_410_is_not_sent_its_next_pending_delivery(world: World) -> None:
    leaving = asyncio.Event()

    async def answer(_number: int, _request: Request) -> Reply:
        await leaving.wait()
        return 410

    world.subscriber.answer = answer
    await world.webhook(event_types=["task.created"], max_in_flight=1)
    for _ in range(3):
        await world.created(BY_HAND)
    await eventually(world, DELIVERIES, lambda rows: len(rows) == 3)
    leaving.set()
    await eventually(world, DELIVERIES, lambda rows: all(row["due_at"] is None for row in rows))
    assert [received.status for received in world.subscriber.received] == [410]


async def test_an_endpoint_that_has_failed_for_five_days_is_disabled_at_its_next_failure(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule=ONCE) as world:
        world.subscriber.answer = lambda _number, request: 200 if request.url.path == OTHERS else 500
        failing = await world.webhook(event_types=["task.created"])
        fails_since(world, 5.01)
        watcher = await register_watcher(world)
        task_id = await world.created(BY_HAND)
        await world.subscriber.until(notices)
        (notice,) = notices(world.subscriber.received)
        assert (notice["data"]["webhook"]["id"], notice["data"]["reason"]) == (failing["id"], "failing")
        found = await current(world, failing)
        assert (found["is_active"], found["disabled_reason"]) == (False, "failing")
        assert (await current(world, watcher))["is_active"] is True
        world.subscriber.answer = lambda _number, _request: 200
        await activate(world, failing)
        await world.subscriber.until(
            lambda received: any(each.path == "/told" and each.status == 200 for each in received)
        )
        assert [received.status for received in world.subscriber.of(task_id)] == [500, 200]


async def test_an_endpoint_that_has_failed_for_less_than_five_days_is_not_disabled(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule=ONCE) as world:
        world.subscriber.answer = lambda _number, _request: 500
        failing = await world.webhook(event_types=["task.created"])
        fails_since(world, 4.99)
        before = (await current(world, failing))["failing_since"]
        await world.created(BY_HAND)
        await eventually(world, ATTEMPTS, bool)
        found = await current(world, failing)
        assert (found["is_active"], found["disabled_reason"], found["failing_since"]) == (True, None, before)


async def test_a_success_before_the_limit_keeps_the_endpoint_active(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule=ONCE) as world:
        failing = await world.webhook(event_types=["task.created"])
        fails_since(world, 5.01)
        await world.created(BY_HAND)
        await eventually(world, ATTEMPTS, bool)
        found = await current(world, failing)
        assert (found["is_active"], found["disabled_reason"], found["failing_since"]) == (True, None, None)


async def test_the_first_failure_starts_the_clock_and_a_success_stops_it(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule=OFTEN) as world:
        replies: asyncio.Queue[Reply] = asyncio.Queue()
        world.subscriber.answer = lambda _number, _request: replies.get()
        webhook = await world.webhook(event_types=["task.created"])
        assert webhook["failing_since"] is None
        await world.created(BY_HAND)
        since = []
        for failures in (1, 2):
            await replies.put(500)
            await eventually(world, ATTEMPTS, lambda rows, failures=failures: len(rows) == failures)  # type: ignore[misc]
            since.append((await current(world, webhook))["failing_since"])
        first_start = datetime.fromisoformat(select(world, ATTEMPTS)[0]["started_at"]).replace(tzinfo=UTC)
        started = datetime.fromisoformat(since[0])
        assert started >= first_start.replace(microsecond=first_start.microsecond // 1000 * 1000)
        assert since[1] == since[0]
        await replies.put(200)
        await eventually(world, DELIVERIES, lambda rows: all(row["status"] == "delivered" for row in rows))
        found = await current(world, webhook)
        assert (found["is_active"], found["failing_since"]) == (True, None)


@pytest.mark.parametrize("status", [410, 500])
async def test_a_client_s_own_callback_is_never_disabled(tmp_path: Path, status: int) -> None:
    async with in_process(tmp_path, retry_schedule=OFTEN) as world:
        world.subscriber.answer = lambda _number, request: 200 if request.url.path == OTHERS else status
        await register_watcher(world)
        await world.created(BY_HAND, config={"webhook_config": {"endpoint": world.subscriber.url, "secret": "mine"}})
        so_far = len(await eventually(world, ATTEMPTS, bool))
        fails_since(world, 6, kind="callback")
        await eventually(world, ATTEMPTS, lambda rows: len(rows) >= so_far + 3)
        world.subscriber.answer = lambda _number, _request: 200
        rows = await eventually(world, DELIVERIES, lambda rows: all(row["settled_at"] for row in rows))
        assert {row["status"] for row in rows} == {"delivered"}
        callbacks = select(world, "SELECT is_active, disabled_reason FROM subscription WHERE kind = 'callback'")
        assert callbacks == [{"is_active": 1, "disabled_reason": None}]
        assert notices(world.subscriber.received) == []
