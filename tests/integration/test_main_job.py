"""The main job in one process: a task completes and its subscriber gets a signed delivery."""

from standardwebhooks import Webhook

from tests.fakes.world import World, as_told


async def test_a_task_completes_and_its_subscriber_receives_the_event(world: World) -> None:
    webhook = await world.webhook()
    task_id = await world.created()
    task = await world.ended(task_id)
    assert task["status"] == "completed"
    assert task["output"]["image_url"]
    await world.subscriber.until(lambda received: len(received) >= 1)
    (delivery,) = world.subscriber.received
    body = Webhook(webhook["secret"]).verify(delivery.body, delivery.headers)
    assert body["type"] == "task.completed"
    assert body["data"] == as_told(task)
