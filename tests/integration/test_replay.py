"""Sending again in bulk: `recover` and `replay`, their progress and their cancellation."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from receiver.domain.ids import new_id
from receiver.outbound import replays
from tests.fakes.past_events import add_events, hours_ago
from tests.fakes.rows import change, eventually, select
from tests.fakes.world import World, in_process

Replay = dict[str, Any]

LEASED = "SELECT uid FROM delivery WHERE leased LIMIT 1"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world where a delivery is dead after two attempts."""
    async with in_process(tmp_path, retry_schedule="0,0.05") as world:
        yield world


async def ask(world: World, webhook: dict[str, Any], what: str, **body: Any) -> Replay:
    answer = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/{what}", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json()["data"])


async def until(world: World, asked: Replay, enough: Callable[[Replay], Any]) -> Replay:
    while True:
        answer = await world.api.get(f"/api/v1/webhooks/{asked['webhook_id']}/replays/{asked['id']}")
        assert answer.status_code == 200, answer.text
        if enough(found := answer.json()["data"]):
            return dict(found)
        assert (await world.api.get("/readyz")).status_code == 200


def is_over(replay: Replay) -> bool:
    return bool(replay["status"] != "running" and replay["pending"] == 0)


async def test_a_replay_sends_past_events_with_their_ids_to_a_new_webhook(world: World) -> None:
    before = add_events(world, 5, ago=timedelta(hours=3))
    wanted = add_events(world, 450, ago=timedelta(hours=2)) + add_events(world, 1, type="task.failed")
    webhook = await world.webhook()
    asked = await ask(world, webhook, "replay", since=hours_ago(2.5))
    assert (asked["object"], asked["kind"], asked["status"], asked["deliveries"]) == (
        "replay",
        "replay",
        "running",
        451,
    )
    done = await until(world, asked, is_over)
    assert (done["status"], done["sent"], done["delivered"], done["dead"]) == ("done", 451, 451, 0)
    assert done["ended_at"]
    told = Counter(received.event_id for received in world.subscriber.received)
    assert told == Counter(wanted)
    assert not told.keys() & set(before)
    listing = (await world.api.get(f"/api/v1/webhooks/{webhook['id']}/replays")).json()["data"]["data"]
    assert listing == [done]


async def test_a_replay_can_be_narrowed_by_time_and_type(world: World) -> None:
    add_events(world, 2, ago=timedelta(hours=3))
    wanted = add_events(world, 3, ago=timedelta(hours=2), type="task.failed")
    add_events(world, 4, ago=timedelta(hours=2))
    add_events(world, 5, type="task.failed")
    webhook = await world.webhook()
    body = {"since": hours_ago(2.5), "until": hours_ago(1.5), "event_types": ["job.failed"]}
    done = await until(world, await ask(world, webhook, "replay", **body), is_over)
    assert (done["deliveries"], done["sent"], done["event_types"]) == (3, 3, ["task.failed"])
    assert {received.event_id for received in world.subscriber.received} == set(wanted)


async def test_a_replay_applies_the_webhook_s_filters(world: World) -> None:
    add_events(world, 1200, model="kling")
    wanted = add_events(world, 7, model="flux", metadata={"customer": 7})
    add_events(world, 3, model="flux", metadata={"customer": 8})
    webhook = await world.webhook(filters={"model": ["flux"], "metadata": {"customer": 7}})
    done = await until(world, await ask(world, webhook, "replay", since=hours_ago(2)), is_over)
    assert (done["deliveries"], done["sent"], done["delivered"]) == (7, 7, 7)
    assert Counter(received.event_id for received in world.subscriber.received) == Counter(wanted)


async def test_a_replay_of_nothing_is_done_at_once(world: World) -> None:
    done = await until(world, await ask(world, await world.webhook(), "replay", since=hours_ago(1)), is_over)
    assert (done["status"], done["deliveries"], done["sent"]) == ("done", 0, 0)


async def test_recover_sends_dead_deliveries_and_nothing_else(world: World) -> None:
    webhook = await world.webhook()
    await world.ended(await world.created())
    await world.subscriber.until(lambda received: len(received) == 1)
    world.subscriber.answer = lambda _number, _request: 500
    for _ in range(2):
        await world.ended(await world.created())
    await eventually(world, "SELECT * FROM delivery WHERE status = 'dead'", lambda rows: len(rows) == 2)
    dead = {row["id"] for row in select(world, "SELECT id FROM delivery WHERE status = 'dead'")}
    change(world, "UPDATE delivery SET settled_at = '2025-01-01 00:00:00.000000' WHERE id = ?", min(dead))
    world.subscriber.answer = lambda _number, _request: 200
    heard_before = len(world.subscriber.received)
    done = await until(world, await ask(world, webhook, "recover", since=hours_ago(1)), is_over)
    assert (done["kind"], done["deliveries"], done["sent"], done["delivered"]) == ("recover", 1, 1, 1)
    assert len(world.subscriber.received) == heard_before + 1
    rows = select(world, "SELECT id, status, attempt FROM delivery ORDER BY id")
    assert [(row["status"], row["attempt"]) for row in rows] == [("delivered", 1), ("dead", 2), ("delivered", 3)]


async def test_deliveries_that_fail_again_are_dead_again_and_the_replay_is_done(world: World) -> None:
    add_events(world, 3)
    world.subscriber.answer = lambda _number, _request: 500
    done = await until(world, await ask(world, await world.webhook(), "replay", since=hours_ago(2)), is_over)
    assert (done["status"], done["sent"], done["dead"], done["delivered"]) == ("done", 3, 3, 0)


async def test_a_replay_waits_while_many_of_its_deliveries_are_pending_and_a_cancel_ends_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "BATCH", 10)
    monkeypatch.setattr(replays, "MOST_PENDING", 20)
    add_events(world, 100)
    webhook = await world.webhook()
    world.subscriber.answer = lambda _number, _request: world.subscriber.hang()
    asked = await ask(world, webhook, "replay", since=hours_ago(2))
    running = await until(world, asked, lambda replay: replay["sent"] >= 20)
    assert (running["status"], running["sent"], running["pending"]) == ("running", 20, 20)
    await eventually(world, LEASED, bool)
    path = f"/api/v1/webhooks/{webhook['id']}/replays/{asked['id']}"
    cancelled = (await world.api.post(f"{path}/cancel")).json()["data"]
    assert (cancelled["status"], cancelled["sent"], cancelled["cancelled"], cancelled["pending"]) == (
        "cancelled",
        20,
        20,
        0,
    )
    assert cancelled["ended_at"]
    assert (await world.api.delete(path)).status_code == 409
    # A delivery that was cancelled during an attempt may still be in flight: it is retried when that must have ended.
    (row,) = select(world, LEASED)
    again = (await world.api.post(f"/api/v1/deliveries/{row['uid']}/retry")).json()["data"]
    assert again["next_attempt_at"] > cancelled["ended_at"]
    world.subscriber.closing.set()


async def test_pending_deliveries_of_a_replay_that_is_done_can_be_cancelled(tmp_path: Path) -> None:
    async with in_process(tmp_path, retry_schedule="0,3600") as world:
        add_events(world, 3)
        webhook = await world.webhook()
        world.subscriber.answer = lambda _number, _request: 500
        asked = await ask(world, webhook, "replay", since=hours_ago(2))
        await until(world, asked, lambda replay: replay["status"] == "done" and len(world.subscriber.received) == 3)
        await eventually(world, "SELECT * FROM delivery_attempt", lambda rows: len(rows) == 3)
        answer = await world.api.delete(f"/api/v1/webhooks/{webhook['id']}/replays/{asked['id']}")
        assert (answer.json()["data"]["status"], answer.json()["data"]["cancelled"]) == ("cancelled", 3)


async def test_a_replay_stops_with_its_webhook(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "BATCH", 2)
    monkeypatch.setattr(replays, "MOST_PENDING", 2)
    add_events(world, 10)
    webhook = await world.webhook()
    world.subscriber.answer = lambda _number, _request: world.subscriber.hang()
    await until(world, await ask(world, webhook, "replay", since=hours_ago(2)), lambda replay: replay["sent"] == 2)
    assert (await world.api.delete(f"/api/v1/webhooks/{webhook['id']}")).status_code == 200
    (row,) = await eventually(world, "SELECT status FROM replay", lambda rows: rows[0]["status"] != "running")
    assert row["status"] == "cancelled"
    assert select(world, "SELECT 1 FROM delivery WHERE status = 'pending'") == []
    world.subscriber.closing.set()


async def test_a_webhook_that_is_disabled_during_a_replay_gets_the_rest_when_activated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "BATCH", 3)
    monkeypatch.setattr(replays, "MOST_PENDING", 3)
    async with in_process(tmp_path, retry_schedule="0,3600") as world:
        wanted = add_events(world, 9)
        webhook = await world.webhook()
        path = f"/api/v1/webhooks/{webhook['id']}"
        world.subscriber.answer = lambda _number, _request: 500
        asked = await ask(world, webhook, "replay", since=hours_ago(2))
        await eventually(world, "SELECT * FROM delivery_attempt", lambda rows: len(rows) == 3)
        await world.api.patch(path, json={"is_active": False})
        world.subscriber.answer = lambda _number, _request: 200
        assert (await until(world, asked, lambda replay: True))["sent"] == 3
        await world.api.patch(path, json={"is_active": True})
        done = await until(world, asked, is_over)
        assert (done["status"], done["sent"], done["delivered"]) == ("done", 9, 9)
        assert {received.event_id for received in world.subscriber.accepted} == set(wanted)


async def test_new_deliveries_overtake_a_replay(world: World) -> None:
    add_events(world, 1000)
    webhook = await world.webhook()
    asked = await ask(world, webhook, "replay", since=hours_ago(2))
    await world.subscriber.until(lambda received: received)
    task_id = await world.created()
    await world.ended(task_id)
    await world.subscriber.until(lambda _heard: world.subscriber.of(task_id))
    assert len(world.subscriber.received) < 1000
    done = await until(world, asked, is_over)
    assert done["delivered"] == 1000


@pytest.mark.parametrize("what", ["replay", "recover"])
@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({}, "since", "required"),
        ({"since": "yesterday"}, "since", "ISO 8601 or unix seconds"),
        ({"since": hours_ago(-1)}, "since", "past"),
        ({"since": "2020-01-01T00:00:00Z"}, "since", "90 days"),
        ({"since": 0}, "since", "the earliest allowed is"),
        ({"since": hours_ago(1), "colour": "red"}, "colour", "Extra"),
    ],
)
async def test_a_wrong_request_names_its_field(
    world: World, what: str, body: dict[str, Any], field: str, said: str
) -> None:
    webhook = await world.webhook()
    answer = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/{what}", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"until": hours_ago(2)}, "until", "after since"),
        ({"event_types": []}, "event_types", "at least one"),
        ({"event_types": ["task.exploded"]}, "event_types", "allowed are"),
        ({"event_types": ["task.created"]}, "event_types", "task.completed"),
    ],
)
async def test_a_replay_that_can_match_nothing_is_refused(
    world: World, body: dict[str, Any], field: str, said: str
) -> None:
    webhook = await world.webhook()
    answer = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/replay", json={"since": hours_ago(1), **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize("what", ["replay", "recover"])
async def test_nothing_is_replayed_to_an_inactive_webhook(world: World, what: str) -> None:
    webhook = await world.webhook()
    await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"is_active": False})
    answer = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/{what}", json={"since": hours_ago(1)})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "webhook_id")


@pytest.mark.parametrize("filters", [None, {"model": ["flux"]}])
async def test_a_replay_of_too_many_deliveries_is_refused_with_advice(
    world: World, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any] | None
) -> None:
    monkeypatch.setattr(replays, "MOST_DELIVERIES", 10)
    webhook = await world.webhook(filters=filters)
    path = f"/api/v1/webhooks/{webhook['id']}/replay"
    add_events(world, 11)
    answer = await world.api.post(path, json={"since": hours_ago(2)})
    assert answer.status_code == 400
    assert "narrow it with" in answer.json()["error"]["message"]
    assert select(world, "SELECT 1 FROM replay") == []


async def test_a_replay_is_found_only_under_its_webhook(world: World) -> None:
    mine, other = await world.webhook(), await world.webhook(description="another")
    asked = await ask(world, mine, "replay", since=hours_ago(1))
    for webhook_id, replay_id in ((other["id"], asked["id"]), (mine["id"], new_id())):
        assert (await world.api.get(f"/api/v1/webhooks/{webhook_id}/replays/{replay_id}")).status_code == 404
    assert (await world.api.post(f"/api/v1/webhooks/{new_id()}/recover", json={"since": 1})).status_code == 404
