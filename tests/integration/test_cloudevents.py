"""CloudEvents 1.0.2, read by the package `cloudevents`."""

from typing import Any

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_structured
from cloudevents.core.formats.json import JSONFormat

from tests.fakes.rows import select
from tests.fakes.subscriber import ReceivedDelivery
from tests.fakes.verifiers import verify_standard
from tests.fakes.world import World


def read(received: ReceivedDelivery) -> BaseCloudEvent:
    """Read a delivery with the public package. Raises if it is not a CloudEvent."""
    return from_structured(HTTPMessage(received.headers, received.body), JSONFormat())


async def heard_by(world: World, **fields: Any) -> tuple[dict[str, Any], str, ReceivedDelivery]:
    webhook = await world.webhook(format="cloudevents", **fields)
    task_id = await world.created()
    await world.subscriber.until(lambda _: world.subscriber.of(task_id))
    return webhook, task_id, world.subscriber.of(task_id)[0]


async def test_the_public_package_reads_the_body_and_the_signature_verifies(world: World) -> None:
    webhook, task_id, received = await heard_by(world, event_types=["task.completed"])
    verify_standard(webhook["secret"], received)
    event, task = read(received), await world.task(task_id)
    assert received.headers["content-type"] == "application/cloudevents+json"
    assert event.get_specversion() == "1.0"
    assert event.get_id() == received.event_id
    assert event.get_type() == "task.completed"
    assert event.get_subject() == task_id
    assert event.get_datacontenttype() == "application/json"
    (history,) = (each for each in await world.events(task_id) if each["type"] == "task.completed")
    moment = event.get_time()
    assert moment is not None
    assert moment.isoformat().replace("+00:00", "Z") == history["created_at"]
    data = event.get_data()
    assert isinstance(data, dict)
    assert (data["task_id"], data["status"], data["output"]) == (task_id, "completed", task["output"])


async def test_the_source_is_the_organization_s_and_the_same_for_every_event(world: World) -> None:
    _, _, first = await heard_by(world, event_types=["task.created"])
    _, _, second = await heard_by(world, event_types=["task.created"])
    (organization,) = select(world, "SELECT uid FROM organization WHERE name = 'default'")
    assert {read(first).get_source(), read(second).get_source()} == {f"urn:ringback:{organization['uid']}"}


async def test_an_event_without_a_task_is_a_cloudevent_too(world: World) -> None:
    webhook = await world.webhook(format="cloudevents")
    await world.api.post(f"/api/v1/webhooks/{webhook['id']}/test")
    (received,) = world.subscriber.received
    event = read(received)
    assert (event.get_type(), event.get_subject()) == ("ping", None)
    verify_standard(webhook["secret"], received)
