"""`kill -9` while a bulk is being sent: what was not sent is sent, and what may have been is not sent again."""

import contextlib
from pathlib import Path
from typing import Any

import httpx

from receiver.sandbox import SandboxOptions
from tests.fakes.rows import select
from tests.fakes.world import ProcessWorld, in_processes

PATIENT = SandboxOptions(duration=0.05, pending_seconds=0.0, webhook_retry_seconds=0.2, webhook_attempts=60)
"""A provider whose webhooks outlast a restart."""
ONE_BY_ONE = "1/s"
"""So that the death is while one call is under way, and the other tasks wait for their turn in hand."""


async def killed_by_the_first_answer(world: ProcessWorld, tasks: int, **script: Any) -> tuple[str, list[str]]:
    """Create a bulk, and kill the service when the provider answered the first call; start it again.

    Return the task that it was for, and the others.
    """
    await world.start(crash="after_the_providers_answer")
    wanted = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat", "sandbox": script}}
    with contextlib.suppress(httpx.TransportError):  # it may die before it answers
        await world.api.post("/api/v1/tasks", json={"tasks": [wanted] * tasks})
    await world.died()
    rows = select(world, "SELECT uid, submission FROM task ORDER BY submission")
    assert [row["submission"] for row in rows] == ["sending", *["waiting"] * (tasks - 1)]
    await world.start()
    first, *others = (row["uid"] for row in rows)
    return first, others


async def test_a_task_that_was_made_is_found_again_and_the_others_are_sent_once(tmp_path: Path) -> None:
    async with in_processes(tmp_path, PATIENT, start=False, provider_rate=ONE_BY_ONE) as world:
        made, others = await killed_by_the_first_answer(world, 2)
        ended = [await world.ended(task_id) for task_id in (made, *others)]
        assert [(task["status"], task["attempt"]) for task in ended] == [("completed", 1)] * 2
        stats = await world.provider_stats()
        assert (stats["created"], stats["requests"]["POST /api/v1/task"]) == (2, 2)


async def test_a_task_that_nobody_hears_of_fails_and_is_not_sent_again(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"provider_rate": ONE_BY_ONE, "submission_unknown_seconds": "1"}
    async with in_processes(tmp_path, PATIENT, start=False, **settings) as world:
        lost, (other,) = await killed_by_the_first_answer(world, 2, submit="unavailable", submit_failures=1)
        task = await world.ended(lost)
        assert (task["status"], task["error"]["code"]) == ("failed", "submission_unknown")
        assert "charged" in task["error"]["message"]
        assert (await world.ended(other))["status"] == "completed"
        # The other one was sent twice: the first time the provider made nothing of it, and said so.
        assert (await world.provider_stats())["requests"]["POST /api/v1/task"] == 3
