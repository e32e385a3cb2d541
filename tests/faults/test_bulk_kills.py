"""`kill -9` while a bulk create is submitted: unsent tasks are sent; one that may have been sent is not sent again."""

import contextlib
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.rows import select
from tests.fakes.world import PERSISTENT, ProcessWorld, in_processes

ONE_BY_ONE = "1/s"
"""A rate limit with which the kill comes during the first call, while the other tasks wait in the process's queue."""


async def killed_by_the_first_answer(world: ProcessWorld, tasks: int, **script: Any) -> tuple[str, list[str]]:
    """Create tasks in bulk, kill the service when the provider has responded to the first call, and start it again.

    Return the id of the task of that call, and the ids of the others.
    """
    await world.start(crash="after_the_providers_answer")
    task = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat", "sandbox": script}}
    with contextlib.suppress(httpx.TransportError):  # the service may die before it responds
        await world.api.post("/api/v1/tasks", json={"tasks": [task] * tasks})
    await world.died()
    rows = select(world, "SELECT uid, submission FROM task ORDER BY submission")
    assert [row["submission"] for row in rows] == ["sending", *["waiting"] * (tasks - 1)]
    await world.start()
    first, *others = (row["uid"] for row in rows)
    return first, others


async def test_a_task_that_the_provider_created_is_found_and_the_others_are_sent_once(tmp_path: Path) -> None:
    async with in_processes(tmp_path, PERSISTENT, start=False, provider_rate=ONE_BY_ONE) as world:
        made, others = await killed_by_the_first_answer(world, 2)
        ended = [await world.ended(task_id) for task_id in (made, *others)]
        assert [(task["status"], task["attempt"]) for task in ended] == [("completed", 1)] * 2
        stats = await world.provider_stats()
        assert (stats["created"], stats["requests"]["POST /api/v1/task"]) == (2, 2)


async def test_a_task_that_cannot_be_found_fails_and_is_not_sent_again(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"provider_rate": ONE_BY_ONE, "submission_unknown_seconds": "1"}
    async with in_processes(tmp_path, PERSISTENT, start=False, **settings) as world:
        lost, (other,) = await killed_by_the_first_answer(world, 2, submit="unavailable", submit_failures=1)
        task = await world.ended(lost)
        assert (task["status"], task["error"]["code"]) == ("failed", "submission_unknown")
        assert "charged" in task["error"]["message"]
        assert (await world.ended(other))["status"] == "completed"
        # The other task was sent twice: the provider refused the first call with a 503, so it had created nothing.
        assert (await world.provider_stats())["requests"]["POST /api/v1/task"] == 3
