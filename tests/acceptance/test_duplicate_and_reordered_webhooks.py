"""Webhooks that come twice, in any order, or before the create call's answer change nothing of the end."""

from pathlib import Path

from tests.acceptance.bulk_scenarios import all_end_as_asked, create_many, ends_by_source, provider
from tests.fakes.verified_subscribers import VerifiedSubscribers
from tests.fakes.world import FAST_POLLING, in_processes

COUNT = 40


async def test_every_webhook_doubled_makes_no_event_twice(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider(duplicate_share=1.0)) as world:
        subscribers = await VerifiedSubscribers.register(world)
        task_ids = await create_many(world, subscribers, COUNT)
        await all_end_as_asked(world, task_ids)
        await subscribers.until_notified(task_ids)
        await subscribers.check(task_ids)
        assert await ends_by_source(world, task_ids) == {"webhook": COUNT}
        for task_id in task_ids:
            events = await world.events(task_id)
            told = [(event["type"], event["data"]["status"]) for event in events]
            assert len(told) == len(set(told))


async def test_every_task_s_webhooks_reordered_give_the_same_end(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider(reorder_share=1.0, progress=2, logs=2)) as world:
        subscribers = await VerifiedSubscribers.register(world)
        task_ids = await create_many(world, subscribers, COUNT)
        await all_end_as_asked(world, task_ids)
        await subscribers.until_notified(task_ids)
        await subscribers.check(task_ids)
        for task_id in task_ids:
            assert (await world.events(task_id))[-1]["type"] in ("task.completed", "task.failed")


async def test_a_webhook_before_the_create_call_s_answer_ends_the_task_at_once(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider()) as world:
        subscribers = await VerifiedSubscribers.register(world)
        task_ids = await create_many(world, subscribers, COUNT, {"webhook": "before_answer"})
        await all_end_as_asked(world, task_ids)
        await subscribers.until_notified(task_ids)
        await subscribers.check(task_ids)
        assert await ends_by_source(world, task_ids) == {"webhook": COUNT}


async def test_doubled_reordered_and_lost_all_at_once(tmp_path: Path) -> None:
    untidy = provider(duplicate_share=0.5, reorder_share=0.5, lose_share=0.3, status_case="title", progress=1)
    async with in_processes(tmp_path, untidy, **FAST_POLLING) as world:
        subscribers = await VerifiedSubscribers.register(world)
        task_ids = await create_many(world, subscribers, COUNT)
        await all_end_as_asked(world, task_ids)
        await subscribers.until_notified(task_ids)
        await subscribers.check(task_ids)
