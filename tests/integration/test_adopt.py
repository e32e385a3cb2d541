"""`POST /api/v1/tasks/adopt`: tasks that were created elsewhere are tracked from then on."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from models import EventType
from receiver.domain.ids import new_id
from tests.fakes.inbound import notice
from tests.fakes.organizations import another_organization
from tests.fakes.rows import RECEIPTS, select
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHARED_SECRET = "a-secret-for-tasks-that-were-made-elsewhere"
BY_HAND = {"outcome": "never"}
PICTURE = {"image_url": "https://example.com/i.png"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module: each uses only its own tasks."""
    settings: dict[str, Any] = {
        "poll_first_seconds": "0.05",
        "poll_max_seconds": "0.2",
        "piapi_webhook_secret": SHARED_SECRET,
    }
    async with in_process(tmp_path_factory.mktemp("world"), **settings) as world:
        yield world


async def elsewhere(world: World, **script: Any) -> str:
    """Create a task directly at the provider; return the provider's id."""
    given = {"prompt": "a dog", "sandbox": {"pending_seconds": 0.0, "duration": 0.05, **script}}
    body = {"model": "kling", "task_type": "video_generation", "input": given}
    answer = await world.provider.post("/api/v1/task", json=body)
    return str(answer.json()["data"]["task_id"])


async def advance(world: World, provider_task_id: str, status: str, **fields: Any) -> None:
    answer = await world.provider.post(f"/sandbox/tasks/{provider_task_id}/advance", json={"status": status, **fields})
    assert answer.status_code == 200, answer.text


async def adopt(world: World, provider_task_id: str, headers: Any = None, **fields: Any) -> httpx.Response:
    body = {"provider_task_id": provider_task_id, **fields}
    return await world.api.post("/api/v1/tasks/adopt", json=body, headers=headers)


async def adopted(world: World, provider_task_id: str, **fields: Any) -> dict[str, Any]:
    """Adopt a task that exists; return it."""
    answer = await adopt(world, provider_task_id, **fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def test_an_adopted_task_is_tracked_to_its_end(world: World) -> None:
    provider_task_id = await elsewhere(world)
    task = await adopted(world, provider_task_id, metadata={"order": "17"})
    assert (task["provider_task_id"], task["model"], task["metadata"]) == (provider_task_id, "kling", {"order": "17"})
    done = await world.ended(task["task_id"])
    assert (done["status"], done["attempt"], done["submission"]) == ("completed", 1, "accepted")
    assert done["output"]["video_url"]
    assert (await world.events(task["task_id"]))[-1]["type"] == EventType.TASK_COMPLETED


async def test_a_task_that_has_ended_is_delivered_at_once(world: World) -> None:
    provider_task_id = await elsewhere(world, **BY_HAND)
    await advance(world, provider_task_id, "completed", output=PICTURE)
    webhook = await world.webhook(event_types=["task.completed"])
    task = await adopted(world, provider_task_id)
    assert (task["status"], task["output"]["image_url"]) == ("completed", PICTURE["image_url"])
    await world.subscriber.until(
        lambda received: any(each.json["data"]["task_id"] == task["task_id"] for each in received)
    )
    await world.api.delete(f"/api/v1/webhooks/{webhook['id']}")


async def test_adopting_again_returns_the_same_task(world: World) -> None:
    provider_task_id = await elsewhere(world, **BY_HAND)
    first = await adopted(world, provider_task_id)
    second = await adopted(world, provider_task_id, metadata={"first": "words"})
    third = await adopted(world, provider_task_id, metadata={"later": "words"})
    assert {each["task_id"] for each in (first, second, third)} == {first["task_id"]}
    # Metadata is stored only while the task has none.
    assert [each["metadata"] for each in (first, second, third)] == [{}, {"first": "words"}, {"first": "words"}]


async def test_a_task_that_ringback_created_can_be_adopted_without_effect(world: World) -> None:
    task = await world.task(await world.created(BY_HAND))
    assert (await adopted(world, task["provider_task_id"]))["task_id"] == task["task_id"]


async def test_a_task_that_the_provider_does_not_know_is_not_found(world: World) -> None:
    answer = await adopt(world, new_id())
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "task_not_found")


async def test_a_task_of_another_organization_gets_the_same_response_as_an_unknown_one(world: World) -> None:
    theirs = another_organization(world, owns_provider_account=True)
    provider_task_id = await elsewhere(world, **BY_HAND)
    assert (await adopt(world, provider_task_id, headers=theirs)).status_code == 200
    refused, unknown = await adopt(world, provider_task_id), await adopt(world, "never-was")
    assert (refused.status_code, unknown.status_code) == (404, 404)
    messages = [each.json()["error"]["message"] for each in (refused, unknown)]
    assert messages[0].replace(provider_task_id, "never-was") == messages[1]


async def test_while_the_provider_does_not_answer_the_response_is_503_with_retry_after(world: World) -> None:
    provider_task_id = await elsewhere(world, poll="error", **BY_HAND)
    answer = await adopt(world, provider_task_id)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert select(world, "SELECT id FROM task WHERE provider_task_id = ?", provider_task_id) == []
    assert (await adopt(world, provider_task_id)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"provider": "unknown"}, "provider"), ({"provider_task_id": " "}, "provider_task_id"), ({"x": 1}, "x")],
    ids=["provider", "no id", "unknown field"],
)
async def test_an_invalid_request_is_refused(world: World, fields: dict[str, Any], param: str) -> None:
    answer = await adopt(world, **{"provider_task_id": "any", **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_late_webhook_of_a_retried_attempt_creates_no_second_task(world: World) -> None:
    provider_task_id = await elsewhere(world, **BY_HAND)
    task_id = (await adopted(world, provider_task_id))["task_id"]
    await advance(world, provider_task_id, "failed")
    await world.ended(task_id)
    await world.api.post(f"/api/v1/tasks/{task_id}/retry")
    headers = {"x-webhook-secret": SHARED_SECRET}
    late = await world.provider.post(
        f"{world.base}/hooks/piapi", json=notice(provider_task_id, "completed", output=PICTURE), headers=headers
    )
    assert late.status_code == 200
    (receipt,) = [row for row in select(world, RECEIPTS) if row["provider_task_id"] == provider_task_id]
    assert receipt["reason"] == "superseded"
    assert (await adopted(world, provider_task_id))["task_id"] == task_id
    task = await world.task(task_id)
    assert (task["attempt"], task["status"] in ("queued", "pending", "processing")) == (2, True)
