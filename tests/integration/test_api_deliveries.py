"""`/api/v1/deliveries`: listing and reading deliveries, and sending one again."""

import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from receiver.domain.ids import new_id
from tests.fakes.world import World, in_process

Delivery = dict[str, Any]

TRANSPORT = {"host", "content-length", "accept", "accept-encoding", "user-agent", "connection"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world where a delivery is dead after two attempts."""
    async with in_process(tmp_path, retry_schedule="0,0.05") as world:
        yield world


async def listed(world: World, path: str = "/api/v1/deliveries", **query: Any) -> list[Delivery]:
    answer = await world.api.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"]["data"])


async def one(world: World, uid: str) -> Delivery:
    answer = await world.api.get(f"/api/v1/deliveries/{uid}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def until(world: World, uid: str, enough: Callable[[Delivery], Any]) -> Delivery:
    """Read a delivery until `enough` is true of it; every read is a round trip through the service."""
    while not enough(found := await one(world, uid)):
        assert (await world.api.get("/readyz")).status_code == 200
    return found


async def settled(world: World, **query: Any) -> Delivery:
    """Return the one delivery of a query when it is settled."""
    while not (found := await listed(world, **query)):
        assert (await world.api.get("/readyz")).status_code == 200
    assert len(found) == 1
    return await until(world, found[0]["id"], lambda delivery: delivery["settled_at"])


async def test_a_delivery_is_listed_with_its_outcome(world: World) -> None:
    webhook = await world.webhook()
    task_id = await world.created()
    await world.ended(task_id)
    delivery = await settled(world)
    (event,) = [event for event in await world.events(task_id) if event["type"] == "task.completed"]
    (row,) = await listed(world)
    assert row == {
        "object": "delivery",
        "id": delivery["id"],
        "event_id": event["id"],
        "event_type": "task.completed",
        "webhook_id": webhook["id"],
        "endpoint_url": world.subscriber.url,
        "task_id": task_id,
        "replay_id": None,
        "run_id": None,
        "status": "delivered",
        "attempt_count": 1,
        "next_attempt_at": None,
        "last_status_code": 200,
        "last_error": None,
        "created_at": row["created_at"],
        "settled_at": row["settled_at"],
    }
    assert row["created_at"] <= row["settled_at"]


@pytest.mark.parametrize("form", ["standard", "pi", "piapi", "cloudevents"])
async def test_one_delivery_shows_its_request_without_secrets_and_its_attempts(world: World, form: str) -> None:
    webhook = await world.webhook(format=form, secret="a-secret-of-mine", headers={"X-Tenant": "confidential"})
    world.subscriber.answer = lambda number, _request: 500 if number == 1 else 200
    await world.ended(await world.created())
    delivery = await settled(world)
    first, second = delivery["attempts"]
    assert (first["attempt"], first["status_code"], first["response"]) == (1, 500, "heard")
    assert (second["attempt"], second["status_code"], second["error"]) == (2, 200, None)
    assert first["started_at"] < second["started_at"]
    assert second["duration_ms"] >= 0
    assert (delivery["attempt_count"], delivery["last_status_code"]) == (2, 200)
    request, received = delivery["request"], world.subscriber.received[-1]
    assert request["url"] == webhook["endpoint_url"]
    assert request["body"] == received.json
    shown = {name.lower(): value for name, value in request["headers"].items()}
    assert shown.keys() == received.headers.keys() - TRANSPORT
    for name, value in shown.items():
        assert value in (received.headers[name], "***")
    assert not {"a-secret-of-mine", "confidential"} & set(shown.values())
    assert all(value == "***" for name, value in shown.items() if "signature" in name or "secret" in name)


async def test_the_shown_request_has_the_time_that_was_signed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's clock and the wall clock are never the same to a second's last microsecond."""
    wall_clock = time.time
    monkeypatch.setattr(time, "time", lambda: wall_clock() - 1)
    await world.webhook()
    await world.ended(await world.created())
    request = (await settled(world))["request"]
    assert request["headers"]["webhook-timestamp"] == world.subscriber.received[-1].headers["webhook-timestamp"]


async def test_a_client_s_own_callback_is_listed_without_a_webhook(world: World) -> None:
    config = {"webhook_config": {"endpoint": f"{world.subscriber.base}/mine", "secret": "s"}}
    await world.ended(await world.created(config=config))
    await world.subscriber.until(lambda received: received)
    delivery = (await listed(world))[0]
    assert (delivery["webhook_id"], delivery["endpoint_url"]) == (None, f"{world.subscriber.base}/mine")


async def test_lists_are_filtered_and_paged_newest_first(world: World) -> None:
    one_webhook, other = await world.webhook(), await world.webhook(event_types=["task.created"])
    first, second = await world.created(), await world.created()
    for task_id in (first, second):
        await world.ended(task_id)
    await world.subscriber.until(lambda received: len(received) == 4)
    while await listed(world, status="pending"):
        assert (await world.api.get("/readyz")).status_code == 200
    everything = await listed(world)
    assert [row["created_at"] for row in everything] == sorted((row["created_at"] for row in everything), reverse=True)

    def ids(rows: list[Delivery]) -> set[str]:
        return {row["id"] for row in rows}

    mine = {row["id"] for row in everything if row["webhook_id"] == one_webhook["id"]}
    assert len(mine) == 2
    assert ids(await listed(world, webhook_id=one_webhook["id"])) == mine
    assert ids(await listed(world, f"/api/v1/webhooks/{one_webhook['id']}/deliveries")) == mine
    assert ids(await listed(world, task_id=first)) == {row["id"] for row in everything if row["task_id"] == first}
    assert {row["event_id"] for row in await listed(world, event_id=everything[0]["event_id"])} == {
        everything[0]["event_id"]
    }
    assert await listed(world, status="dead") == []
    moment = datetime.fromisoformat(everything[-1]["created_at"])
    assert ids(await listed(world, created_after=moment.isoformat())) == ids(everything[:-1])
    assert ids(await listed(world, created_before=str((moment + timedelta(microseconds=1)).timestamp()))) <= ids(
        everything[-1:]
    )
    answer = await world.api.get("/api/v1/deliveries", params={"limit": 3})
    page = answer.json()["data"]
    assert (page["has_more"], len(page["data"])) == (True, 3)
    rest = await listed(world, cursor=page["next_cursor"])
    assert page["data"] + rest == everything
    await world.api.delete(f"/api/v1/webhooks/{other['id']}")
    assert len(await listed(world, webhook_id=other["id"])) == 2
    assert (await world.api.get(f"/api/v1/webhooks/{other['id']}/deliveries")).status_code == 404


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ({"status": "sent"}, 400, "status"),
        ({"limit": 0}, 400, "limit"),
        ({"cursor": "never"}, 400, "cursor"),
        ({"created_after": "yesterday"}, 400, "created_after"),
        ({"created_after": 1760000000, "created_before": 1760000000}, 400, "created_before"),
        ({"webhook": "x"}, 400, "webhook"),
        ({"webhook_id": "never-was"}, 400, "webhook_id"),
        ({"webhook_id": new_id()}, 404, "webhook_id"),
        ({"event_id": new_id()}, 404, "event_id"),
        ({"task_id": "never-was"}, 404, "task_id"),
    ],
)
async def test_a_wrong_filter_is_named(world: World, query: dict[str, Any], status: int, field: str) -> None:
    answer = await world.api.get("/api/v1/deliveries", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, field)


async def test_a_retried_dead_delivery_starts_its_schedule_from_the_beginning(world: World) -> None:
    await world.webhook()
    world.subscriber.answer = lambda _number, _request: 500
    await world.ended(await world.created())
    dead = await settled(world)
    assert (dead["status"], dead["attempt_count"]) == ("dead", 2)
    again = await world.api.post(f"/api/v1/deliveries/{dead['id']}/retry")
    assert (again.status_code, again.json()["data"]["status"]) == (202, "pending")
    assert again.json()["data"]["settled_at"] is None
    dead = await until(world, dead["id"], lambda delivery: delivery["settled_at"])
    assert (dead["status"], dead["attempt_count"]) == ("dead", 4)
    world.subscriber.answer = lambda _number, _request: 200
    assert (await world.api.post(f"/api/v1/deliveries/{dead['id']}/retry")).status_code == 202
    delivered = await until(world, dead["id"], lambda delivery: delivery["settled_at"])
    assert (delivered["status"], delivered["attempt_count"]) == ("delivered", 5)
    assert [attempt["attempt"] for attempt in delivered["attempts"]] == [1, 2, 3, 4, 5]
    assert len({received.event_id for received in world.subscriber.received}) == 1


async def test_a_delivered_delivery_can_be_sent_again(world: World) -> None:
    await world.webhook()
    await world.ended(await world.created())
    delivery = await settled(world)
    assert (await world.api.post(f"/api/v1/deliveries/{delivery['id']}/retry")).status_code == 202
    await world.subscriber.until(lambda received: len(received) == 2)
    first, second = world.subscriber.received
    assert (first.event_id, first.body) == (second.event_id, second.body)


async def test_a_pending_delivery_or_one_of_a_removed_webhook_is_not_retried(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule="0,3600") as world:
        webhook = await world.webhook()
        world.subscriber.answer = lambda number, _request: 500 if number == 1 else 200
        await world.ended(await world.created())
        await world.subscriber.until(lambda received: received)
        (row,) = await listed(world)
        waiting = await until(world, row["id"], lambda delivery: delivery["next_attempt_at"])
        assert waiting["next_attempt_at"] > waiting["attempts"][0]["started_at"]

        async def retried() -> int:
            return (await world.api.post(f"/api/v1/deliveries/{row['id']}/retry")).status_code

        assert await retried() == 409
        await world.api.delete(f"/api/v1/webhooks/{webhook['id']}")
        assert (await one(world, row["id"]))["status"] == "cancelled"
        assert await retried() == 409


async def test_no_delivery_of_an_inactive_webhook_is_retried(world: World) -> None:
    webhook = await world.webhook()
    await world.ended(await world.created())
    delivery = await settled(world)
    await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"is_active": False})
    path = f"/api/v1/deliveries/{delivery['id']}/retry"
    assert (await world.api.post(path)).status_code == 409
    await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"is_active": True})
    assert (await world.api.post(path)).status_code == 202
    await world.subscriber.until(lambda received: len(received) == 2)


async def test_what_is_pending_is_listed_whether_it_is_due_or_waits_for_its_webhook(world: World) -> None:
    world.subscriber.answer = lambda _number, _request: world.subscriber.hang()
    due, off = [await world.webhook(event_types=["task.created"]) for _ in range(2)]
    for _ in range(3):
        await world.created()
    assert (await world.api.patch(f"/api/v1/webhooks/{off['id']}", json={"is_active": False})).status_code == 200
    everything = [row["id"] for row in await listed(world)]
    assert len(everything) == 6
    for query in ({}, {"limit": 1}, {"limit": 4}):
        assert await _all_pages(world, status="pending", **query) == everything
    of_one = await _all_pages(world, status="pending", webhook_id=off["id"], limit=2)
    assert (len(of_one), set(of_one) < set(everything)) == (3, True)
    assert (await world.api.delete(f"/api/v1/webhooks/{due['id']}")).status_code == 200
    assert await _all_pages(world, status="pending") == of_one
    assert await _all_pages(world, status="cancelled", limit=2) == [each for each in everything if each not in of_one]
    assert await _all_pages(world, status="dead") == []
    world.subscriber.closing.set()  # the service would wait for the answers when it stops


async def _all_pages(world: World, **query: Any) -> list[str]:
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await world.api.get("/api/v1/deliveries", params={**query, **cursor})).json()["data"]
        found += [row["id"] for row in page["data"]]
        if not page["has_more"]:
            return found
        cursor = {"cursor": page["next_cursor"]}
