"""What an authentic webhook changes, and what it does not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing
from tests.fakes.inbound import hook_secret, notice, post, report
from tests.fakes.rows import RECEIPTS, change, select
from tests.fakes.subscriber import ReceivedDelivery
from tests.fakes.world import World, as_told, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

BY_HAND = {"outcome": "never", "webhook": "lost"}
PICTURE = {"image_url": "https://example.com/i.png"}
ERROR = {"code": 10000, "raw_message": "out of memory", "message": "task failed", "detail": None}
SHARED = "a-secret-for-tasks-of-elsewhere"
OLD_KEY, NEW_KEY = "Vd7KqXw2ZrM9tYc4LpH6", "Jb3NfTz8WkQ5xGm7RvS2"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world with a subscriber for all tests of this module: each uses only its own tasks."""
    async with in_process(tmp_path_factory.mktemp("world"), piapi_webhook_secret=SHARED) as world:
        await world.webhook()
        yield world


async def deliveries_of(world: World, task_id: str, count: int = 1) -> list[ReceivedDelivery]:
    """Return the deliveries for a task when there are at least `count`. Raises TimeoutError."""
    await world.subscriber.until(lambda _: len(world.subscriber.of(task_id)) >= count)
    return world.subscriber.of(task_id)


def receipts_of(world: World, task_id: str) -> list[dict[str, Any]]:
    return [receipt for receipt in select(world, RECEIPTS) if receipt["task_uid"] == task_id]


def ends(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] in ("task.completed", "task.failed", "task.cancelled")]


async def test_a_failed_task_may_be_corrected_and_the_event_names_the_one_that_it_corrects(world: World) -> None:
    task_id = await world.created(BY_HAND)
    await report(world, task_id, "failed", error=ERROR)
    assert (await world.task(task_id))["error"]["message"] == "task failed"
    await report(world, task_id, "completed", output=PICTURE)
    task = await world.task(task_id)
    assert (task["status"], task["error"], task["output"]["image_url"]) == ("completed", None, PICTURE["image_url"])
    failed, completed = ends(await world.events(task_id))
    assert (failed["type"], completed["type"]) == ("task.failed", "task.completed")
    assert completed["data"]["corrects"] == failed["id"]
    delivered = {received.event_id: received.json for received in await deliveries_of(world, task_id, 2)}
    assert delivered.keys() == {failed["id"], completed["id"]}
    assert delivered[failed["id"]]["data"]["error"]["message"] == "task failed"
    assert delivered[completed["id"]]["data"]["output"]["image_url"] == PICTURE["image_url"]


async def test_a_providers_correction_is_applied_and_both_ends_are_delivered(world: World) -> None:
    task_id = await world.created({"outcome": "failed_then_completed", "duration": 0.1})
    assert [each.json["type"] for each in await deliveries_of(world, task_id, 2)] == [
        "task.failed",
        "task.completed",
    ]
    assert (await world.task(task_id))["status"] == "completed"


@pytest.mark.parametrize(
    ("first", "then"), [("completed", "failed"), ("completed", "cancelled"), ("failed", "cancelled")]
)
async def test_a_conflicting_end_is_a_receipt_and_the_first_one_stands(world: World, first: str, then: str) -> None:
    task_id = await world.created(BY_HAND)
    await report(world, task_id, first, output=PICTURE if first == "completed" else None)
    before, events = await world.task(task_id), await world.events(task_id)
    assert (await report(world, task_id, then, error=ERROR)).status_code == 200
    assert await world.task(task_id) == before
    assert await world.events(task_id) == events
    (receipt,) = receipts_of(world, task_id)
    assert receipt["reason"] == "conflicting"
    assert then in receipt["body"]


async def test_a_webhook_of_a_superseded_attempt_is_a_receipt(world: World) -> None:
    script = {"key": "twice", "fail_attempts": 1, "outcome": "never"}
    task_id = await world.created(script, retry={"max_attempts": 2, "backoff_seconds": 0.0})
    made = (await world.provider.get("/sandbox/tasks")).json()["tasks"]
    first = next(task["task_id"] for task in made if task["endpoint"].endswith(task_id))
    task = await attempt_under_way(world, task_id, 2)
    assert task["provider_task_id"] != first
    known = len(receipts_of(world, task_id))
    answer = await post(world, task_id, attempt=1, json=notice(first, "completed", output=PICTURE))
    assert answer.status_code == 200
    assert (await world.task(task_id))["status"] == "processing"
    receipt = receipts_of(world, task_id)[known]
    assert (receipt["reason"], receipt["provider_task_id"]) == ("superseded", first)
    assert not ends(await world.events(task_id))


async def test_a_webhook_of_another_provider_task_is_a_receipt(world: World) -> None:
    task_id = await world.created(BY_HAND)
    answer = await post(world, task_id, json=notice("of-another-task", "completed", output=PICTURE))
    assert answer.status_code == 200
    assert (await world.task(task_id))["status"] not in ("completed", "failed")
    assert [receipt["reason"] for receipt in receipts_of(world, task_id)] == ["superseded"]


async def test_the_same_webhook_many_times_at_once_is_one_event(world: World) -> None:
    task_id = await world.created(BY_HAND)
    answers = await asyncio.gather(*(report(world, task_id, "completed", output=PICTURE) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    (end,) = ends(await world.events(task_id))
    assert {received.event_id for received in await deliveries_of(world, task_id)} == {end["id"]}
    assert receipts_of(world, task_id) == []


async def test_a_webhook_identifies_the_task_whose_create_call_had_no_answer(world: World) -> None:
    task_id = await world.created({"submit": "bad_gateway"})
    task = await world.ended(task_id, seconds=5)
    assert (task["status"], task["submission"]) == ("completed", "accepted")
    (endpoint,) = [each for each in (await world.provider_stats())["by_endpoint"].items() if task_id in each[0]]
    assert endpoint[1] == 1


async def test_a_deleted_task_is_inserted_again_from_its_webhook(world: World) -> None:
    task_id = new_id()
    body = notice("p-1", "completed", output=PICTURE, input={"prompt": "a cat"})
    assert (await post(world, task_id, json=body)).status_code == 200
    task = await world.task(task_id)
    assert (task["status"], task["provider_task_id"]) == ("completed", "p-1")
    assert (task["model"], task["input"]) == ("Qubico/flux1-schnell", {"prompt": "a cat"})
    (delivery,) = await deliveries_of(world, task_id)
    assert delivery.json["data"] == as_told(task)


async def test_a_webhook_with_another_tasks_provider_task_creates_no_task(world: World) -> None:
    owner, stranger = await world.created(BY_HAND), new_id()
    answer = await post(world, stranger, json=await completed(world, owner))
    assert answer.status_code == 200, answer.text
    assert (await world.api.get(f"/api/v1/tasks/{stranger}")).status_code == 404
    assert (await world.task(owner))["status"] != "completed"
    assert [receipt["reason"] for receipt in receipts_of(world, stranger)] == ["conflicting"]


async def test_a_webhook_with_the_shared_secret_creates_a_task(world: World) -> None:
    assert (await from_elsewhere(world, notice("e-1", "processing"))).status_code == 200
    task = await world.task("e-1")
    assert (task["status"], task["model"]) == ("processing", "Qubico/flux1-schnell")
    assert (await from_elsewhere(world, notice("e-1", "completed", output=PICTURE))).status_code == 200
    assert (await world.task("e-1"))["task_id"] == task["task_id"]
    assert (await world.task(task["task_id"]))["status"] == "completed"
    (delivery,) = await deliveries_of(world, task["task_id"])
    assert delivery.json["type"] == "task.completed"


async def test_a_task_of_ringback_may_report_with_the_shared_secret_too(world: World) -> None:
    task_id = await world.created(BY_HAND)
    provider_id = (await world.task(task_id))["provider_task_id"]
    assert (await from_elsewhere(world, notice(provider_id, "completed", output=PICTURE))).status_code == 200
    assert (await world.task(task_id))["status"] == "completed"


async def test_many_new_tasks_reported_concurrently_are_each_created_once(world: World) -> None:
    bodies = [notice(f"many-{number % 5}", "completed", output=PICTURE) for number in range(40)]
    answers = await asyncio.gather(*(from_elsewhere(world, body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    rows = select(
        world, "SELECT t.uid FROM task t JOIN event e ON e.task_id = t.id WHERE provider_task_id LIKE 'many-%'"
    )
    assert len(rows) == len({row["uid"] for row in rows}) == 5


async def test_a_wrong_shared_secret_is_refused_and_so_is_any_without_the_setting(tmp_path: Path, world: World) -> None:
    assert (await from_elsewhere(world, notice("wrong-1", "completed"), secret="wrong")).status_code == 401
    assert (await world.api.get("/api/v1/tasks/wrong-1")).status_code == 404
    async with in_process(tmp_path) as other:
        for secret in (SHARED, ""):
            assert (await from_elsewhere(other, notice("p-1", "completed"), secret=secret)).status_code == 401


async def test_after_a_master_key_rotation_old_secrets_verify_and_new_ones_use_the_new_key(
    tmp_path: Path,
) -> None:
    async with in_process(tmp_path, secret_key=OLD_KEY) as world:
        before = await world.created(BY_HAND)
        old_secret = hook_secret(world, before)
    async with in_process(tmp_path, secret_key=f"{OLD_KEY},{NEW_KEY}") as world:
        after = await world.created()
        assert (await world.ended(after))["status"] == "completed"
        assert hook_secret(world, after) == KeyRing([NEW_KEY]).hook_secret(after)
        assert (await post(world, before, secret=old_secret, json=await completed(world, before))).status_code == 200
        assert (await world.task(before))["status"] == "completed"
    async with in_process(tmp_path, secret_key=NEW_KEY) as world:
        assert (await post(world, before, secret=old_secret, json={})).status_code == 401


async def test_a_row_deleted_while_the_service_runs_is_inserted_again(world: World) -> None:
    task_id = await world.created(BY_HAND)
    body = await completed(world, task_id)
    change(world, "DELETE FROM event WHERE task_id = (SELECT id FROM task WHERE uid = ?)", task_id)
    change(world, "DELETE FROM task WHERE uid = ?", task_id)
    assert (await post(world, task_id, json=body)).status_code == 200
    assert (await world.task(task_id))["status"] == "completed"


async def completed(world: World, task_id: str) -> dict[str, Any]:
    return notice((await world.task(task_id))["provider_task_id"], "completed", output=PICTURE)


async def from_elsewhere(world: World, body: dict[str, Any], *, secret: str = SHARED) -> httpx.Response:
    return await world.provider.post(f"{world.base}/hooks/piapi", json=body, headers={"x-webhook-secret": secret})


async def attempt_under_way(world: World, task_id: str, attempt: int) -> dict[str, Any]:
    """Wait until the task is processing in this attempt; return it. Raises TimeoutError."""
    async with asyncio.timeout(10):
        while True:
            task = await world.task(task_id)
            if task["attempt"] == attempt and task["status"] == "processing":
                return task
