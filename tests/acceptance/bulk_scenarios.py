"""Scenarios with many tasks at once: they are created, they end, and every subscriber receives each end."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from receiver.sandbox import SandboxOptions
from tests.fakes.verified_subscribers import VerifiedSubscribers
from tests.fakes.world import QUICK, World

MODELS = ("Qubico/flux1-schnell", "kling", "hailuo", "luma", "Qubico/ace-step", "midjourney")


def provider(**knobs: Any) -> SandboxOptions:
    """Return the options of a fast provider that has these faults."""
    return replace(QUICK, **knobs)


async def create_and_verify(world: World, count: int, script: Mapping[str, Any] | None = None) -> list[str]:
    """Create tasks; check that all end as they should and that every subscriber accepts every end. Return their ids."""
    subscribers = await VerifiedSubscribers.register(world)
    task_ids = await create_many(world, subscribers, count, script)
    await all_end_as_scripted(world, task_ids)
    await subscribers.until_notified(task_ids)
    await subscribers.check(task_ids)
    return task_ids


async def create_many(
    world: World, subscribers: VerifiedSubscribers, count: int, script: Mapping[str, Any] | None = None
) -> list[str]:
    """Create tasks of several models concurrently, each with `script`; every fifth fails at the provider."""

    async def create(number: int) -> str:
        outcome = {"outcome": "failed"} if number % 5 == 4 else {}
        return await world.created(
            {**(script or {}), **outcome},
            model=MODELS[number % len(MODELS)],
            input={"prompt": f"picture {number}"},
            config=subscribers.config,
        )

    return list(await asyncio.gather(*(create(number) for number in range(count))))


async def all_end_as_scripted(world: World, task_ids: list[str]) -> None:
    """Check that every task of `create_many` ends in the right status with its output, and was created only once."""
    tasks = await asyncio.gather(*(world.ended(task_id) for task_id in task_ids))
    for number, task in enumerate(tasks):
        if number % 5 == 4:
            assert (task["status"], task["error"]["message"]) == ("failed", "task failed")
        else:
            assert task["status"] == "completed"
            assert any(task["output"].get(f"{kind}_url") for kind in ("image", "video", "audio"))
    stats = await world.provider_stats()
    assert stats["created"] == len(task_ids), stats
    assert max(Counter(stats["by_endpoint"]).values(), default=1) == 1


async def ends_by_source(world: World, task_ids: list[str]) -> Counter[str]:
    """Return how many of these tasks ended by an update of each source, such as `webhook` and `poll`."""
    histories = await asyncio.gather(*(world.events(task_id) for task_id in task_ids))
    return Counter(history[-1]["source"] for history in histories)
