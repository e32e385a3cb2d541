"""Every format, verified by public libraries; also events without a task."""

from dataclasses import replace
from typing import Any

import pytest
from replicate.webhook import WebhookValidationError

from tests.fakes.subscriber import ReceivedDelivery
from tests.fakes.verifiers import verify_ed25519, verify_pi, verify_replicate, verify_standard
from tests.fakes.world import World

FORMATS = ("standard", "pi", "piapi", "cloudevents", "replicate")
SECRET = "a-secret-that-a-user-chose"


async def register(world: World, **fields: Any) -> dict[str, dict[str, Any]]:
    """Register one webhook per format, each with its own path."""
    return {
        form: await world.webhook(endpoint_url=f"{world.subscriber.base}/{form}", format=form, **fields)
        for form in FORMATS
    }


async def received(world: World, text: str, paths: tuple[str, ...] = FORMATS) -> dict[str, ReceivedDelivery]:
    """Return the request at each path that contains `text`, once all paths have received one."""

    def found(deliveries: list[ReceivedDelivery]) -> dict[str, ReceivedDelivery]:
        return {each.path.strip("/"): each for each in deliveries if text.encode() in each.body}

    await world.subscriber.until(lambda deliveries: found(deliveries).keys() >= set(paths))
    return found(world.subscriber.received)


def verify(form: str, webhook: dict[str, Any], deliveries: ReceivedDelivery) -> None:
    if form == "piapi":
        assert deliveries.headers["x-webhook-secret"] == webhook["secret"]
        assert "webhook-signature" not in deliveries.headers
        return
    verify_standard(webhook["secret"], deliveries)
    if form == "pi":
        verify_pi(webhook["secret"], deliveries)


async def test_every_format_verifies_and_one_id_is_in_all(world: World) -> None:
    webhooks = await register(world, event_types=["task.completed"], headers={"X-Tenant": "acme"})
    task_id = await world.created()
    deliveries = await received(world, task_id)
    for form, webhook in webhooks.items():
        verify(form, webhook, deliveries[form])
        assert deliveries[form].headers["x-tenant"] == "acme"
    assert len({each.event_id for each in deliveries.values()}) == 1
    types = {form: each.headers["content-type"] for form, each in deliveries.items()}
    assert types == {**dict.fromkeys(FORMATS, "application/json"), "cloudevents": "application/cloudevents+json"}


async def test_replicate_s_client_accepts_a_delivery_and_refuses_a_changed_one(world: World) -> None:
    webhook = await world.webhook(event_types=["task.completed"])
    delivery = (await received(world, await world.created(), ("told",)))["told"]
    verify_replicate(webhook["secret"], delivery)
    with pytest.raises(WebhookValidationError):
        verify_replicate(webhook["secret"], replace(delivery, body=delivery.body.replace(b"completed", b"cancelled")))
    stale = {**delivery.headers, "webhook-timestamp": str(int(delivery.headers["webhook-timestamp"]) - 3600)}
    with pytest.raises(WebhookValidationError, match="tolerance"):
        verify_replicate(webhook["secret"], replace(delivery, headers=stale))


async def test_each_format_has_its_own_form_of_the_task(world: World) -> None:
    await register(world, event_types=["task.completed"])
    task_id = await world.created(metadata={"customer": "acme"})
    task = await world.ended(task_id)
    bodies = {form: each.json for form, each in (await received(world, task_id)).items()}
    assert bodies["standard"].keys() == {"type", "timestamp", "data"}
    assert bodies["standard"]["data"]["task_id"] == task_id
    assert bodies["standard"]["data"]["output"] == task["output"]
    assert bodies["pi"]["type"] == "job.completed"
    assert bodies["pi"]["data"]["job"]["id"] == task_id
    assert bodies["piapi"].keys() == {"timestamp", "data"}
    assert bodies["piapi"]["data"]["task_id"] == task_id
    assert bodies["cloudevents"]["subject"] == task_id
    assert bodies["cloudevents"]["data"] == bodies["standard"]["data"]


async def test_a_given_secret_signs_in_every_format(world: World) -> None:
    await register(world, event_types=["task.created"], secret=SECRET)
    deliveries = await received(world, await world.created())
    assert deliveries["piapi"].headers["x-webhook-secret"] == SECRET
    verify_pi(SECRET, deliveries["pi"])


@pytest.mark.parametrize("form", ["standard", "cloudevents"])
async def test_an_ed25519_signature_verifies_with_the_returned_public_key(world: World, form: str) -> None:
    webhook = await world.webhook(format=form, signature="v1a", event_types=["task.created"])
    assert "secret" not in webhook
    task_id = await world.created()
    await world.subscriber.until(lambda _: world.subscriber.of(task_id))
    (deliveries,) = world.subscriber.of(task_id)
    verify_ed25519(webhook["public_key"], deliveries)
    assert "whsk_" not in repr([webhook, deliveries])


async def test_the_event_of_a_disabled_webhook_is_sent_in_every_format(world: World) -> None:
    webhooks = await register(world, event_types=["webhook.disabled"], filters={"model": "another"})
    world.subscriber.answer = lambda _number, request: 410 if request.url.path == "/gone" else 200
    gone = await world.webhook(
        endpoint_url=f"{world.subscriber.base}/gone", event_types=["task.created"], headers={"X-Tenant": "planted"}
    )
    await world.created()
    deliveries = await received(world, gone["id"])
    for form, webhook in webhooks.items():
        verify(form, webhook, deliveries[form])
    bodies = {form: each.json for form, each in deliveries.items() if form in webhooks}
    data = bodies["standard"]["data"]
    assert (data["reason"], data["webhook"]["id"], data["webhook"]["is_active"]) == ("gone", gone["id"], False)
    assert all(body["data"] == data for body in bodies.values())
    assert {body["type"] for body in bodies.values()} == {"webhook.disabled"}
    assert deliveries["pi"].headers["x-pi-event"] == "webhook.disabled"
    assert "subject" not in bodies["cloudevents"]
    assert "planted" not in repr(bodies)
    shown = (await world.api.get(f"/api/v1/webhooks/{gone['id']}")).json()["data"]
    assert (shown["is_active"], shown["disabled_reason"]) == (False, "gone")


async def test_only_events_of_tasks_that_match_the_filters_are_sent(world: World) -> None:
    base, types = world.subscriber.base, ["task.created"]
    await world.webhook(endpoint_url=f"{base}/all", event_types=types)
    await world.webhook(endpoint_url=f"{base}/model", event_types=types, filters={"model": ["kling", "luma"]})
    await world.webhook(endpoint_url=f"{base}/type", event_types=types, filters={"task_type": "img2img"})
    await world.webhook(endpoint_url=f"{base}/mine", event_types=types, filters={"metadata": {"customer": "acme"}})
    created = {
        "kling": await world.created(model="kling", metadata={"customer": "acme"}),
        "img2img": await world.created(task_type="img2img", metadata={"customer": "other"}),
        "plain": await world.created(),
    }
    await world.subscriber.until(lambda deliveries: len(deliveries) >= 6)
    told_of = {
        (deliveries.path, name) for name, task_id in created.items() for deliveries in world.subscriber.of(task_id)
    }
    everything = {("/all", name) for name in created}
    assert told_of == everything | {("/model", "kling"), ("/mine", "kling"), ("/type", "img2img")}


async def test_a_changed_filter_applies_to_later_events(world: World) -> None:
    webhook = await world.webhook(event_types=["task.created"], filters={"model": "another"})
    before = await world.created()
    await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"filters": None})
    after = await world.created()
    await world.subscriber.until(lambda _: world.subscriber.of(after))
    assert not world.subscriber.of(before)
