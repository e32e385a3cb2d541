"""`kill -9` during a request with an `Idempotency-Key`: the key is not blocked, and nothing is created twice."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.domain.ids import new_id
from tests.fakes.rows import select
from tests.fakes.verifiers import verify_standard
from tests.fakes.world import FAST_POLLING, ProcessWorld, in_processes

TASK = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat"}}
REPLAYED = "x-idempotency-replayed"
POINTS = ["after_the_work_before_its_answer_is_stored", "before_the_commit_of_a_stored_answer"]


async def killed_and_repeated(world: ProcessWorld, point: str, path: str, body: Any) -> httpx.Response:
    """Send a request that kills the service; after a restart send it twice. Return the first of two equal responses."""
    headers = {"idempotency-key": new_id()}
    await world.start(crash=point)
    with pytest.raises(httpx.TransportError):
        await world.api.post(path, json=body, headers=headers)
    await world.died()
    await world.start()
    first, second = [await world.api.post(path, json=body, headers=headers) for _ in range(2)]
    assert (REPLAYED in first.headers, second.headers[REPLAYED]) == (False, "true")
    assert (first.status_code, second.content) == (200, first.content)
    return first


@pytest.mark.parametrize("point", POINTS)
async def test_a_task_is_created_once_and_returned_for_its_key(tmp_path: Path, point: str) -> None:
    async with in_processes(tmp_path, start=False, **FAST_POLLING) as world:
        answer = await killed_and_repeated(world, point, "/api/v1/task", TASK)
        task_id = answer.json()["data"]["task_id"]
        assert [row["uid"] for row in select(world, "SELECT uid FROM task")] == [task_id]
        assert (await world.ended(task_id))["status"] == "completed"
        assert (await world.provider_stats())["created"] == 1


async def test_a_webhook_is_registered_once_and_its_secret_is_returned(tmp_path: Path) -> None:
    async with in_processes(tmp_path, start=False, **FAST_POLLING) as world:
        body = {"endpoint_url": world.subscriber.url}
        answer = await killed_and_repeated(world, POINTS[0], "/api/v1/webhooks", body)
        webhook = answer.json()["data"]
        assert [row["uid"] for row in select(world, "SELECT uid FROM subscription")] == [webhook["id"]]
        await world.api.post(f"/api/v1/webhooks/{webhook['id']}/test")
        verify_standard(webhook["secret"], world.subscriber.received[-1])


async def test_work_that_was_not_done_is_done_when_the_key_is_repeated(tmp_path: Path) -> None:
    async with in_processes(tmp_path, start=False, **FAST_POLLING) as world:
        answer = await killed_and_repeated(world, "before_the_work_of_a_key", "/api/v1/task", TASK)
        task_id = answer.json()["data"]["task_id"]
        assert [row["uid"] for row in select(world, "SELECT uid FROM task")] == [task_id]
        assert [row["resource_id"] for row in select(world, "SELECT resource_id FROM idempotency_key")] == [task_id]
