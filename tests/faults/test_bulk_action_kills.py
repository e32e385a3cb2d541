"""`kill -9` during a bulk action: it continues where it stopped, and acts on no task twice."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.pipeline import FAILS, WAITING
from tests.fakes.rows import Rows, eventually, select
from tests.fakes.world import FAST_POLLING, ProcessWorld, in_processes

TASKS = 80
POINTS = ("between_two_batches_of_a_bulk_action", "in_the_middle_of_a_batch_of_a_bulk_action")
CANCELS = "SELECT task_id FROM event WHERE type = 'task.cancelled'"


async def create(world: ProcessWorld, script: Mapping[str, Any], status: str) -> None:
    """Create tasks, and wait until all have a status."""
    task = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat", "sandbox": dict(script)}}
    await world.api.post("/api/v1/tasks", json={"tasks": [task] * TASKS})
    await until_all(world, status)


async def until_all(world: ProcessWorld, status: str) -> Rows:
    query = f"SELECT attempt FROM task WHERE status = '{status}'"
    return await eventually(world, query, lambda rows: len(rows) == TASKS, seconds=30)


async def ask(world: ProcessWorld, what: str) -> None:
    """Request a bulk action of all tasks; a service that dies during it may not respond."""
    try:
        answer = await world.api.post(f"/api/v1/tasks/{what}", json={"all": True})
    except httpx.TransportError:
        return
    assert (answer.status_code, answer.json()["data"]["matched"]) == (202, TASKS)


async def is_done(world: ProcessWorld) -> dict[str, Any]:
    while True:
        (action,) = (await world.api.get("/api/v1/bulk-actions")).json()["data"]["data"]
        if action["status"] != "running":
            return dict(action)


async def test_a_bulk_cancel_goes_on_after_a_kill(tmp_path: Path) -> None:
    async with in_processes(tmp_path, start=False, **FAST_POLLING) as world:
        await world.start(crash="in_the_middle_of_a_batch_of_a_bulk_action")
        await create(world, WAITING, "pending")
        await ask(world, "cancel")
        await world.died()
        assert 0 < len(select(world, CANCELS)) < TASKS
        await world.start()
        done = await is_done(world)
        assert (done["status"], done["done"], done["failed_by_code"]) == ("done", TASKS, {})
        told = [row["task_id"] for row in select(world, CANCELS)]
        assert len(told) == len(set(told)) == TASKS


@pytest.mark.parametrize("point", POINTS)
async def test_a_bulk_retry_begins_one_attempt_of_each_task_through_a_kill(tmp_path: Path, point: str) -> None:
    async with in_processes(tmp_path, start=False, **FAST_POLLING) as world:
        await world.start(crash=point)
        await create(world, FAILS, "failed")
        await ask(world, "retry")
        await world.died()
        assert any(row["attempt"] == 2 for row in select(world, "SELECT attempt FROM task"))
        await world.start()
        done = await is_done(world)
        assert (done["status"], done["done"], done["failed_by_code"]) == ("done", TASKS, {})
        assert {row["attempt"] for row in await until_all(world, "failed")} == {2}
