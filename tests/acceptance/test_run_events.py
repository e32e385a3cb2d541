"""Events of runs are delivered like those of tasks: signed in every format, streamed, replayed and filtered."""

import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured
from cloudevents.core.formats.json import JSONFormat

from tests.fakes.pipeline import (
    FAILS,
    HELD,
    WAITING,
    begin,
    change,
    ended,
    get_run,
    push,
    step,
    until_steps,
    world_with_actions,
)
from tests.fakes.reader import reading
from tests.fakes.subscriber import ReceivedDelivery
from tests.fakes.verifiers import verify_pi, verify_standard
from tests.fakes.world import World

FORMATS = ("standard", "pi", "piapi", "cloudevents")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_with_actions(tmp_path) as world:
        yield world


def data_of(form: str, received: ReceivedDelivery, run_id: str) -> Any:
    """Check the parts of a delivery that its format prescribes; return its data."""
    body: Mapping[str, Any] = received.json
    assert body["type"] in ("run.created", "run.completed")
    match form:
        case "standard":
            assert body.keys() == {"type", "timestamp", "data"}
        case "pi":
            assert (body["id"], body["object"]) == (f"evt_pi_{received.event_id}", "event")
            assert received.headers["x-pi-event"] == body["type"]
        case "piapi":
            assert body.keys() == {"timestamp", "type", "data"}
        case "cloudevents":
            event = from_structured(HTTPMessage(received.headers, received.body), JSONFormat())
            assert (event.get_type(), event.get_subject()) == (body["type"], run_id)
    return body["data"]


def verify(form: str, secret: str, received: ReceivedDelivery) -> None:
    if form == "piapi":
        assert received.headers["x-webhook-secret"] == secret
        return
    verify_standard(secret, received)
    if form == "pi":
        verify_pi(secret, received)


async def test_deliveries_in_every_format_and_the_stream_carry_the_same_events(world: World) -> None:
    base = world.subscriber.base
    webhooks = {
        form: await world.webhook(endpoint_url=f"{base}/{form}", format=form, event_types=["run.*"]) for form in FORMATS
    }
    async with reading(world, event_types="run.*") as reader:
        run_id = await begin(world, step("a"), step("b", "a"), metadata={"order": 17})
        streamed = await reader.until(lambda seen: len(seen) == 2)
    await world.subscriber.until(lambda received: len(received) == 2 * len(FORMATS))
    run = await get_run(world, run_id)
    created, completed = (each.data for each in streamed)
    assert [created["type"], completed["type"]] == ["run.created", "run.completed"]
    assert {each["status"] for each in created["data"]["steps"]} == {"pending"}
    assert completed["data"] == run
    for received in world.subscriber.received:
        form = received.path.strip("/")
        verify(form, webhooks[form]["secret"], received)
        event = {"run.created": created, "run.completed": completed}[received.json["type"]]
        assert (data_of(form, received, run_id), received.event_id) == (event["data"], event["id"])


async def test_each_kind_of_end_has_its_event_type_with_the_state_of_the_run_at_that_time(world: World) -> None:
    await world.webhook(event_types=["run.failed", "run.cancelled"])
    failing = await begin(world, step("a", sandbox=FAILS), step("b", "a"))
    cancelled = await begin(world, step("a", sandbox=WAITING))
    await change(world, cancelled, "cancel")
    await world.subscriber.until(lambda received: len(received) == 2)
    delivered = {received.json["data"]["id"]: received.json for received in world.subscriber.received}
    assert {run_id: body["type"] for run_id, body in delivered.items()} == {
        failing: "run.failed",
        cancelled: "run.cancelled",
    }
    assert delivered[failing]["data"]["status"] == "failed"
    assert delivered[failing]["data"]["steps"][0]["error"]["message"] == "task failed"


async def test_a_webhook_with_a_run_id_filter_receives_events_of_that_run_and_of_its_tasks(world: World) -> None:
    mine, other = await begin(world, step("a", sandbox=HELD)), await begin(world, step("a", sandbox=HELD))
    types = ["run.completed", "task.completed"]
    await world.webhook(event_types=types, filters={"run_id": mine})
    for run_id in (other, mine):
        await push(world, await until_steps(world, run_id, a="processing"), "a", "completed")
        run = await ended(world, run_id)
    await world.subscriber.until(lambda received: len(received) == 2)
    task, whole = sorted(
        (received.json for received in world.subscriber.received), key=lambda body: body["type"], reverse=True
    )
    assert (task["data"]["run_id"], task["data"]["step"]) == (mine, "a")
    assert whole["data"] == run


async def test_a_metadata_filter_selects_the_runs_that_a_webhook_receives_also_in_a_replay(world: World) -> None:
    types = ["run.completed"]
    webhook = await world.webhook(event_types=types, filters={"metadata": {"customer": "acme"}})
    acme = await begin(world, step("a"), metadata={"customer": "acme"})
    other = await begin(world, step("a"), metadata={"customer": "other"})
    await ended(world, other)
    await world.subscriber.until(lambda received: len(received) == 1)
    replay = await world.api.post(f"/api/v1/webhooks/{webhook['id']}/replay", json={"since": time.time() - 3600})
    assert replay.status_code == 202, replay.text
    await world.subscriber.until(lambda received: len(received) == 2)
    assert {received.json["data"]["id"] for received in world.subscriber.received} == {acme}
    assert len({received.event_id for received in world.subscriber.received}) == 1
