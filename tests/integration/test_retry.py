"""`POST /api/v1/tasks/{id}/retry`, and the earlier attempts that a task shows."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from models import EventType
from receiver.domain.ids import new_id
from tests.fakes.inbound import notice, post
from tests.fakes.rows import RECEIPTS, change, select
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

LASTING = {"pending_seconds": 60.0}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module: each uses only its own tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("receiver.tracking.submit.FIRST_SEARCH_SECONDS", 0.05)
        patch.setattr("receiver.tracking.search.FIRST_SEARCH_SECONDS", 0.05)
        async with in_process(tmp_path_factory.mktemp("world"), submission_unknown_seconds="0.3") as world:
            yield world


async def retry(world: World, task_id: str) -> httpx.Response:
    return await world.api.post(f"/api/v1/tasks/{task_id}/retry")


async def failed(world: World, **script: Any) -> dict[str, Any]:
    """Create a task whose first attempt fails; return it after that."""
    given = {"fail_attempts": 1, "key": new_id(), **script}
    task = await world.ended(await world.created(given))
    assert task["status"] == "failed"
    return task


async def test_a_failed_task_is_retried_under_its_own_id(world: World) -> None:
    task = await failed(world)
    answer = await retry(world, task["task_id"])
    data = answer.json()["data"]
    assert (answer.status_code, data["task_id"], data["attempt"], data["max_attempts"]) == (200, task["task_id"], 2, 2)
    assert (data["error"], data["output"], data["ended_at"]) == (None, None, None)
    done = await world.ended(task["task_id"])
    assert (done["status"], done["attempt"], done["submission"]) == ("completed", 2, "accepted")
    assert done["provider_task_id"] not in (None, task["provider_task_id"])


async def test_each_attempt_is_kept_with_its_providers_id_its_error_and_its_times(world: World) -> None:
    task = await failed(world)
    await retry(world, task["task_id"])
    done = await world.ended(task["task_id"])
    first, second = done["attempts"]
    assert first == {
        "attempt": 1,
        "status": "failed",
        "provider_task_id": task["provider_task_id"],
        "error": task["error"],
        "submitted_at": first["submitted_at"],
        "started_at": task["started_at"],
        "ended_at": task["ended_at"],
    }
    assert (second["attempt"], second["status"], second["error"]) == (2, "completed", None)
    assert second["provider_task_id"] == done["provider_task_id"]
    assert first["submitted_at"] < first["ended_at"] <= second["submitted_at"] < second["ended_at"]


async def test_attempts_after_the_providers_failures_are_kept_too(world: World) -> None:
    script = {"fail_attempts": 2, "key": new_id()}
    done = await world.ended(await world.created(script, retry={"max_attempts": 3, "backoff_seconds": 0.01}))
    assert [(each["attempt"], each["status"]) for each in done["attempts"]] == [
        (1, "failed"),
        (2, "failed"),
        (3, "completed"),
    ]
    assert [each["error"]["code"] for each in done["attempts"][:2]] == [10000, 10000]
    assert all(each["submitted_at"] and each["ended_at"] for each in done["attempts"])
    assert len({each["provider_task_id"] for each in done["attempts"]}) == 3


async def test_a_single_attempt_is_shown_only_on_request_and_takes_no_row(world: World) -> None:
    task = await world.ended(await world.created())
    assert "attempts" not in task
    answer = await world.api.get(f"/api/v1/tasks/{task['task_id']}", params={"include": "attempts"})
    (only,) = answer.json()["data"]["attempts"]
    assert (only["attempt"], only["status"], only["ended_at"]) == (1, "completed", task["ended_at"])
    query = "SELECT count(*) AS kept FROM task_attempt a JOIN task t ON t.id = a.task_id WHERE t.uid = ?"
    assert select(world, query, task["task_id"]) == [{"kept": 0}]
    answer = await world.api.get(f"/api/v1/tasks/{task['task_id']}", params={"include": "everything"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "include")


async def test_an_event_says_that_the_failure_was_not_the_end(world: World) -> None:
    task = await failed(world)
    await retry(world, task["task_id"])
    await world.ended(task["task_id"])
    events = await world.events(task["task_id"])
    types = [event["type"] for event in events]
    end = types.index(EventType.TASK_FAILED)
    again = events[end + 1]
    assert (again["type"], again["data"]["status"], again["data"]["attempt"]) == (EventType.TASK_UPDATED, "queued", 2)
    assert again["data"]["retries"] == events[end]["id"]
    assert types[end + 2 :][-1] == EventType.TASK_COMPLETED


async def test_a_cancelled_task_is_sent_again(world: World) -> None:
    task_id = await world.created(LASTING)
    await world.api.delete(f"/api/v1/task/{task_id}")
    before = await world.task(task_id)
    assert (await retry(world, task_id)).status_code == 200
    while (task := await world.task(task_id))["provider_task_id"] is None:
        pass
    assert (task["status"], task["attempt"]) == ("pending", 2)
    assert task["provider_task_id"] != before["provider_task_id"]
    assert task["attempts"][0]["status"] == "cancelled"


async def test_an_unknown_submission_may_be_retried_by_its_client(world: World) -> None:
    script = {"submit": "nonsense", "submit_failures": 1, "key": new_id()}
    task = await world.ended(await world.created(script))
    assert task["error"]["code"] == "submission_unknown"
    assert "charged" in task["error"]["message"]
    await retry(world, task["task_id"])
    done = await world.ended(task["task_id"])
    assert (done["status"], done["attempt"]) == ("completed", 2)
    assert done["attempts"][0]["error"]["code"] == "submission_unknown"


async def test_a_completed_or_running_task_cannot_be_retried(world: World) -> None:
    done = await world.ended(await world.created())
    running = await world.created(LASTING)
    for task_id, status in ((done["task_id"], "completed"), (running, "pending")):
        answer = await retry(world, task_id)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
        assert status in answer.json()["error"]["message"]
    assert (await retry(world, new_id())).status_code == 404


async def test_of_two_concurrent_retries_one_starts_an_attempt(world: World) -> None:
    task = await failed(world)
    answers = await asyncio.gather(*(retry(world, task["task_id"]) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert (await world.ended(task["task_id"]))["attempt"] == 2


async def test_a_step_of_a_run_is_retried_with_its_run_only(world: World) -> None:
    task, run = await failed(world), new_id()
    change(world, "UPDATE task SET run_uid = ? WHERE uid = ?", run, task["task_id"])
    answer = await retry(world, task["task_id"])
    assert answer.status_code == 409
    assert run in answer.json()["error"]["message"]


async def test_a_late_webhook_of_a_retried_attempt_becomes_a_receipt(world: World) -> None:
    task = await failed(world)
    task_id = task["task_id"]
    await retry(world, task_id)
    done = await world.ended(task_id)
    late = notice(task["provider_task_id"], "completed", output={"image_url": "https://example.com/late.png"})
    assert (await post(world, task_id, json=late)).status_code == 200
    (receipt,) = [row for row in select(world, RECEIPTS) if row["task_uid"] == task_id]
    assert (receipt["reason"], receipt["provider_task_id"]) == ("superseded", task["provider_task_id"])
    assert await world.task(task_id) == done
