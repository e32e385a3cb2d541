"""What webhooks do not bring, polling brings: every task ends and everybody is told, whatever share is lost."""

from pathlib import Path

from tests.acceptance.bulk_scenarios import all_end_as_asked, create_many, ends_by_source, provider
from tests.fakes.verified_subscribers import VerifiedSubscribers
from tests.fakes.world import FAST_POLLING, in_processes

COUNT = 40


async def test_every_task_ends_and_everybody_is_told_though_every_webhook_is_lost(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider(lose_share=1.0), **FAST_POLLING) as world:
        subscribers = await VerifiedSubscribers.register(world)
        task_ids = await create_many(world, subscribers, COUNT)
        await all_end_as_asked(world, task_ids)
        await subscribers.until_notified(task_ids)
        await subscribers.check(task_ids)
        stats = await world.provider_stats()
        assert stats["notices"]["lost"] > 0
        assert stats["notices"]["sent"] == 0
        assert await ends_by_source(world, task_ids) == {"poll": COUNT}


async def test_every_task_ends_and_everybody_is_told_though_some_webhooks_are_lost(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider(lose_share=0.3), **{**FAST_POLLING, "poll_first_seconds": "1"}) as world:
        subscribers = await VerifiedSubscribers.register(world)
        task_ids = await create_many(world, subscribers, COUNT)
        await all_end_as_asked(world, task_ids)
        await subscribers.until_notified(task_ids)
        await subscribers.check(task_ids)
        by_source = await ends_by_source(world, task_ids)
        assert min(by_source["webhook"], by_source["poll"]) > 0


async def test_without_a_public_url_no_webhook_is_asked_for_and_polling_does_it_all(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider(), public=False, **FAST_POLLING) as world:
        subscribers = await VerifiedSubscribers.register(world)
        task_ids = await create_many(world, subscribers, COUNT)
        await all_end_as_asked(world, task_ids)
        await subscribers.until_notified(task_ids)
        await subscribers.check(task_ids)
        stats = await world.provider_stats()
        assert stats["by_endpoint"] == {}
        assert stats["notices"]["sent"] == 0
