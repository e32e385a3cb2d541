"""Webhooks that are duplicated, reordered or sent before the create call's response do not change how a task ends."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.acceptance.bulk_scenarios import create_and_verify, ends_by_source, provider
from tests.fakes.world import FAST_POLLING, in_processes

COUNT = 40
NO_POLLS: Mapping[str, Any] = {"poll_first_seconds": "300", "poll_max_seconds": "300"}
"""Settings with which only webhooks end tasks, however slow the machine is."""


async def test_duplicates_of_every_webhook_create_no_event_twice(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider(duplicate_share=1.0), **NO_POLLS) as world:
        task_ids = await create_and_verify(world, COUNT)
        assert await ends_by_source(world, task_ids) == {"webhook": COUNT}
        for task_id in task_ids:
            events = await world.events(task_id)
            changes = [(event["type"], event["data"]["status"]) for event in events]
            assert len(changes) == len(set(changes))


async def test_tasks_whose_webhooks_are_reordered_end_in_the_same_way(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider(reorder_share=1.0, progress=2, logs=2)) as world:
        task_ids = await create_and_verify(world, COUNT)
        for task_id in task_ids:
            assert (await world.events(task_id))[-1]["type"] in ("task.completed", "task.failed")


async def test_a_webhook_before_the_response_to_the_create_call_ends_the_task_at_once(tmp_path: Path) -> None:
    async with in_processes(tmp_path, provider(), **NO_POLLS) as world:
        task_ids = await create_and_verify(world, COUNT, {"webhook": "before_answer"})
        assert await ends_by_source(world, task_ids) == {"webhook": COUNT}


async def test_duplicated_reordered_and_lost_webhooks_together_change_nothing(tmp_path: Path) -> None:
    faulty = provider(duplicate_share=0.5, reorder_share=0.5, lose_share=0.3, status_case="title", progress=1)
    async with in_processes(tmp_path, faulty, **FAST_POLLING) as world:
        await create_and_verify(world, COUNT)
