"""The main job, in one process."""

from standardwebhooks import Webhook

from tests.fakes.world import World


async def test_a_task_ends_and_its_subscriber_is_told(world: World) -> None:
    webhook = await world.webhook()
    task_id = await world.created()
    task = await world.ended(task_id)
    assert task["status"] == "completed"
    assert task["output"]["image_url"]
    await world.subscriber.until(lambda heard: len(heard) >= 1)
    (told,) = world.subscriber.heard
    body = Webhook(webhook["secret"]).verify(told.body, told.headers)
    assert body["type"] == "task.completed"
    assert body["data"] == task
