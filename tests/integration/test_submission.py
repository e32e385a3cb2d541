"""Submitting a task to its provider: once, whatever the outcome of the create call."""

from pathlib import Path
from typing import Any

import pytest

from models import EventType
from receiver.sandbox import create_sandbox
from tests.fakes.servers import bound, served, url_of
from tests.fakes.world import QUICK, World, in_process


async def only_task(world: World) -> dict[str, Any]:
    """Return the only task."""
    answer = await world.api.get("/api/v1/tasks")
    (task,) = answer.json()["data"]["data"]
    return dict(task)


async def calls(world: World) -> tuple[int, int]:
    """Return how many create calls reached the provider, and how many tasks they created."""
    stats = await world.provider_stats()
    return stats["requests"].get("POST /api/v1/task", 0), stats["created"]


async def types(world: World, task_id: str) -> list[str]:
    return [event["type"] for event in await world.events(task_id)]


async def test_a_refusal_is_passed_on_with_the_providers_own_message(world: World) -> None:
    status, message = 400, "invalid request: the prompt was refused"
    answer = await world.create({"submit": "refuse"}, retry={"max_attempts": 5, "backoff_seconds": 0})
    assert (answer.status_code, answer.json()) == (status, {"code": status, "message": message})
    task = await only_task(world)
    assert (task["status"], task["submission"], task["attempt"]) == ("failed", "refused", 1)
    assert (task["error"]["code"], task["error"]["message"]) == (status, message)
    assert await types(world, task["task_id"]) == [EventType.TASK_CREATED, EventType.TASK_FAILED]
    assert await calls(world) == (1, 0)


async def test_a_wrong_key_of_ringback_s_own_is_not_taken_for_one_of_the_client_s(world: World) -> None:
    answer = await world.create({"submit": "unauthorized"}, retry={"max_attempts": 5, "backoff_seconds": 0})
    body = answer.json()
    assert (answer.status_code, body["code"], body["error"]["code"]) == (502, 502, "provider_unauthorized")
    assert "RINGBACK_PIAPI_API_KEY" in body["message"]
    task = await only_task(world)
    assert (task["status"], task["submission"], task["attempt"]) == ("failed", "refused", 1)
    assert (task["error"]["code"], task["error"]["message"]) == ("provider_unauthorized", body["message"])
    assert await calls(world) == (1, 0)


@pytest.mark.parametrize("behaviour", ["rate_limited", "unavailable"])
async def test_a_call_that_made_nothing_is_repeated(world: World, behaviour: str) -> None:
    answer = await world.create({"submit": behaviour, "retry_after": 0})
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "pending")
    task = await world.ended(answer.json()["data"]["task_id"])
    assert (task["status"], task["attempt"], task["submission"]) == ("completed", 1, "accepted")
    assert await calls(world) == (2, 1)


async def test_a_provider_error_500_fails_the_attempt(world: World) -> None:
    answer = await world.create({"submit": "error"})
    assert answer.status_code == 200
    task = await world.ended(answer.json()["data"]["task_id"])
    assert (task["status"], task["error"]["code"]) == ("failed", 500)
    assert task["error"]["message"] == "failed to create task"
    assert await calls(world) == (1, 0)


async def test_a_failed_attempt_is_tried_again(world: World) -> None:
    script = {"submit": "error", "submit_failures": 1, "key": "work"}
    task_id = await world.created(script, retry={"max_attempts": 2, "backoff_seconds": 0.05})
    task = await world.ended(task_id)
    assert (task["status"], task["attempt"], task["error"]) == ("completed", 2, None)
    assert await calls(world) == (2, 1)
    assert EventType.TASK_FAILED not in await types(world, task_id)


async def test_a_task_that_failed_at_the_provider_is_created_there_again(world: World) -> None:
    script = {"fail_attempts": 1, "key": "work"}
    task_id = await world.created(script, retry={"max_attempts": 2, "backoff_seconds": 0.05})
    task = await world.ended(task_id)
    assert (task["task_id"], task["status"], task["attempt"]) == (task_id, "completed", 2)
    assert await calls(world) == (2, 2)
    events = await types(world, task_id)
    assert (events.count(EventType.TASK_SUBMITTED), events.count(EventType.TASK_COMPLETED)) == (2, 1)
    assert EventType.TASK_FAILED not in events


async def test_only_the_last_attempts_failure_is_the_tasks(world: World) -> None:
    script = {"fail_attempts": 9, "key": "work"}
    task_id = await world.created(script, retry={"max_attempts": 3, "backoff_seconds": 0.01})
    task = await world.ended(task_id)
    assert (task["status"], task["attempt"], task["error"]["code"]) == ("failed", 3, 10000)
    assert (await types(world, task_id)).count(EventType.TASK_FAILED) == 1
    assert await calls(world) == (3, 3)


@pytest.mark.parametrize("behaviour", ["bad_gateway", "cut"])
async def test_a_call_whose_answer_was_lost_is_never_repeated_and_the_webhook_identifies_the_task(
    world: World, behaviour: str
) -> None:
    task_id = await world.created({"submit": behaviour}, retry={"max_attempts": 5, "backoff_seconds": 0})
    task = await world.ended(task_id)
    assert (task["status"], task["submission"], task["attempt"]) == ("completed", "accepted", 1)
    assert task["provider_task_id"]
    assert await calls(world) == (1, 1)


async def test_a_call_that_was_never_answered_is_not_repeated(tmp_path: Path) -> None:
    async with in_process(tmp_path, provider_timeout_seconds="0.2") as world:
        task = await world.ended(await world.created({"submit": "hang", "hang_seconds": 60}))
        assert (task["status"], task["submission"]) == ("completed", "accepted")
        assert await calls(world) == (1, 1)


@pytest.mark.usefixtures("quick_search")
async def test_with_lost_webhooks_too_the_history_identifies_tasks_by_their_webhook_url(world: World) -> None:
    task_ids = [await world.created({"submit": "bad_gateway", "webhook": "lost"}) for _ in range(2)]
    tasks = [await world.ended(task_id) for task_id in task_ids]
    assert [task["status"] for task in tasks] == ["completed", "completed"]
    assert len({task["provider_task_id"] for task in tasks}) == 2
    assert await calls(world) == (2, 2)


@pytest.mark.usefixtures("quick_search")
@pytest.mark.parametrize("behaviour", ["bad_gateway", "cut"])
async def test_without_a_public_url_the_history_identifies_a_task_by_its_request(
    tmp_path: Path, behaviour: str
) -> None:
    async with in_process(tmp_path, public=False, poll_first_seconds="0.05") as world:
        await world.ended(await world.created(input={"prompt": "another cat"}))
        task = await world.ended(await world.created({"submit": behaviour}))
        assert (task["status"], task["submission"]) == ("completed", "accepted")
        assert await calls(world) == (2, 2)


@pytest.mark.usefixtures("quick_search")
async def test_lost_creates_with_the_same_request_are_assigned_one_to_one(tmp_path: Path) -> None:
    async with in_process(tmp_path, public=False, poll_first_seconds="0.05") as world:
        task_ids = [await world.created({"submit": "bad_gateway"}) for _ in range(3)]
        tasks = [await world.ended(task_id) for task_id in task_ids]
        assert [task["status"] for task in tasks] == ["completed"] * 3
        assert len({task["provider_task_id"] for task in tasks}) == 3
        assert await calls(world) == (3, 3)


@pytest.mark.usefixtures("quick_search")
async def test_an_unknown_submission_without_any_update_fails_with_its_own_code(tmp_path: Path) -> None:
    async with in_process(tmp_path, submission_unknown_seconds="0.5") as world:
        retry = {"max_attempts": 5, "backoff_seconds": 0}
        task_id = await world.created({"submit": "nonsense"}, retry=retry)
        task = await world.ended(task_id)
        assert (task["status"], task["error"]["code"]) == ("failed", "submission_unknown")
        assert "did not answer the create call as expected (HTTP 200 with" in task["error"]["message"]
        assert (task["attempt"], task["provider_task_id"]) == (1, None)
        assert await calls(world) == (1, 0)


async def test_a_provider_that_is_down_gets_the_task_when_it_is_up_again(world: World) -> None:
    await world.provider_options(submit_status=503)
    task_id = await world.created()
    task = await world.task(task_id)
    assert task["status"] == "queued"
    assert task["submission"] in ("waiting", "sending")
    await world.provider_options(submit_status=None)
    assert (await world.ended(task_id))["status"] == "completed"
    assert (await calls(world))[1] == 1


async def test_a_provider_that_cannot_be_reached_gets_the_task_when_it_can(tmp_path: Path) -> None:
    provider = bound()
    async with in_process(tmp_path, piapi_base_url=url_of(provider)) as world:
        task_id = await world.created()
        assert (await world.task(task_id))["submission"] in ("waiting", "sending")
        async with served(create_sandbox(QUICK), provider):
            assert (await world.ended(task_id))["status"] == "completed"


async def test_a_client_waits_for_a_slow_provider_only_as_long_as_the_setting_says(tmp_path: Path) -> None:
    async with in_process(tmp_path, submit_wait_seconds="0.05", poll_first_seconds="0.05") as world:
        answer = await world.create({"submit": "hang", "hang_seconds": 1, "webhook": "lost"})
        data = answer.json()["data"]
        assert (answer.status_code, data["status"], data["meta"]["provider_task_id"]) == (200, "pending", None)
        assert (await world.ended(data["task_id"]))["status"] == "completed"
        assert await calls(world) == (1, 1)


async def test_a_webhook_may_come_before_the_create_answer(world: World) -> None:
    answer = await world.create({"webhook": "before_answer"})
    data = answer.json()["data"]
    assert data["status"] == "completed"
    assert data["output"]["image_url"]
    assert await types(world, data["task_id"]) == [EventType.TASK_CREATED, EventType.TASK_COMPLETED]


async def test_a_task_is_cancelled_before_it_is_sent(world: World) -> None:
    await world.provider_options(submit_status=503)
    task_id = await world.created()
    answer = await world.api.delete(f"/api/v1/task/{task_id}")
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "cancelled")
    await world.provider_options(submit_status=None)
    assert (await world.task(task_id))["status"] == "cancelled"
    assert (await calls(world))[1] == 0
