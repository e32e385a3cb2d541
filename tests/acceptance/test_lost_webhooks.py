"""Polling makes up for lost webhooks: whatever share is lost, every task ends and every subscriber is notified."""

from pathlib import Path

from tests.acceptance.bulk_scenarios import create_and_verify, ends_by_source, provider
from tests.fakes.world import FAST_POLLING, in_processes

COUNT = 40


async def test_every_task_ends_and_every_subscriber_is_notified_when_all_webhooks_are_lost(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider(lose_share=1.0), **FAST_POLLING) as world:
        task_ids = await create_and_verify(world, COUNT)
        stats = await world.provider_stats()
        assert stats["notices"]["lost"] > 0
        assert stats["notices"]["sent"] == 0
        assert await ends_by_source(world, task_ids) == {"poll": COUNT}


async def test_every_task_ends_and_every_subscriber_is_notified_when_some_webhooks_are_lost(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider(lose_share=0.3), **{**FAST_POLLING, "poll_first_seconds": "1"}) as world:
        task_ids = await create_and_verify(world, COUNT)
        by_source = await ends_by_source(world, task_ids)
        assert min(by_source["webhook"], by_source["poll"]) > 0


async def test_without_a_public_url_no_webhook_is_requested_and_polling_ends_every_task(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider(), public=False, **FAST_POLLING) as world:
        await create_and_verify(world, COUNT)
        stats = await world.provider_stats()
        assert stats["by_endpoint"] == {}
        assert stats["notices"]["sent"] == 0
