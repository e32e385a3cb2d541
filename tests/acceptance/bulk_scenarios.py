"""Many tasks side by side, with all that may happen to them, and what must be true of them in the end."""

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
    """Return a quick provider that misbehaves as it is told to."""
    return replace(QUICK, **knobs)


async def create_many(
    world: World, subscribers: VerifiedSubscribers, count: int, script: Mapping[str, Any] | None = None
) -> list[str]:
    """Create tasks side by side, of several models; every fifth fails at the provider."""

    async def create(number: int) -> str:
        outcome = {"outcome": "failed"} if number % 5 == 4 else {}
        return await world.created(
            {**(script or {}), **outcome},
            model=MODELS[number % len(MODELS)],
            input={"prompt": f"picture {number}"},
            config=subscribers.config,
        )

    return list(await asyncio.gather(*(create(number) for number in range(count))))


async def all_end_as_asked(world: World, task_ids: list[str]) -> None:
    """Every task is terminal, the right one, with its output; and the provider made each once."""
    tasks = await asyncio.gather(*(world.ended(task_id) for task_id in task_ids))
    for number, task in enumerate(tasks):
        if number % 5 == 4:
            assert (task["status"], task["error"]["message"]) == ("failed", "task failed")
        else:
            assert task["status"] == "completed"
            assert any(task["output"].get(f"{kind}_url") for kind in ("image", "video", "audio"))
    stats = await world.provider_stats()
    assert stats["created"] == len(task_ids)
    assert max(Counter(stats["by_endpoint"]).values(), default=1) == 1


async def ends_by_source(world: World, task_ids: list[str]) -> Counter[str]:
    """Count by which way the end of each task came."""
    histories = await asyncio.gather(*(world.events(task_id) for task_id in task_ids))
    return Counter(history[-1]["data"]["source"] for history in histories)
