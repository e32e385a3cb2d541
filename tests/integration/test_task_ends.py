"""Every task reaches an end that people expect: late results, unknown words, tasks that the provider does not know."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from receiver.storage.sqlite.values import write_moment
from tests.fakes.inbound import PICTURE, SILENT, post, report
from tests.fakes.rows import RECEIPTS, change, eventually, select
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

START = datetime(2026, 1, 1, tzinfo=UTC)
MODERATED = {"code": 1, "raw_message": "", "message": "content moderated", "detail": None}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world with a subscriber for all tests of this module: each uses only its own tasks."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        await world.webhook()
        yield world


async def ends(world: World, task_id: str) -> list[dict[str, Any]]:
    return [event for event in await world.events(task_id) if event["type"] in ("task.completed", "task.failed")]


async def completed_deliveries(world: World, task_id: str, count: int) -> list[dict[str, Any]]:
    """Return the bodies of the deliveries of `task.completed` when there are `count`. Raises TimeoutError."""

    def found() -> list[dict[str, Any]]:
        return [each.json for each in world.subscriber.of(task_id) if each.json["type"] == "task.completed"]

    await world.subscriber.until(lambda _: len(found()) >= count)
    return found()


async def advance(world: World, task_id: str, status: str, **result: Any) -> None:
    """Change the task at the provider, which sends no webhook."""
    provider_task_id = (await world.task(task_id))["provider_task_id"]
    answer = await world.provider.post(f"/sandbox/tasks/{provider_task_id}/advance", json={"status": status, **result})
    assert answer.status_code == 200, answer.text


async def refresh(world: World, task_id: str) -> dict[str, Any]:
    answer = await world.api.post(f"/api/v1/tasks/{task_id}/refresh")
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


@pytest.mark.parametrize("empty", [{}, None])
async def test_a_result_that_comes_after_the_end_is_stored_and_told_as_a_correction(world: World, empty: Any) -> None:
    task_id = await world.created(SILENT)
    await report(world, task_id, "completed", output=empty)
    (first,) = await completed_deliveries(world, task_id, 1)
    assert not (first["data"]["output"] or {}).get("image_url")
    await report(world, task_id, "completed", output=PICTURE)
    assert (await world.task(task_id))["output"]["image_url"] == PICTURE["image_url"]
    _, second = await completed_deliveries(world, task_id, 2)
    assert second["data"]["output"]["image_url"] == PICTURE["image_url"]
    assert second["data"]["ended_at"] is not None
    told = await ends(world, task_id)
    assert select(world, "SELECT count(*) AS count FROM event WHERE type = 'task.completed'")[0]["count"] >= 2
    assert len(told) == 2


async def test_the_same_result_twice_is_told_once_and_another_one_is_a_receipt(world: World) -> None:
    task_id = await world.created(SILENT)
    other = {"image_url": "https://example.com/other.png"}
    for output in (PICTURE, PICTURE, other):
        await report(world, task_id, "completed", output=output)
    assert len(await ends(world, task_id)) == 1
    assert (await world.task(task_id))["output"]["image_url"] == PICTURE["image_url"]
    receipts = [receipt for receipt in select(world, RECEIPTS) if receipt["task_uid"] == task_id]
    assert [receipt["reason"] for receipt in receipts] == ["conflicting"]
    assert "other.png" in receipts[0]["body"]


async def test_a_refresh_brings_the_result_of_a_task_that_completed_without_one(world: World) -> None:
    task_id = await world.created(SILENT)
    await report(world, task_id, "completed", output={})
    await advance(world, task_id, "completed", output=PICTURE)
    assert (await refresh(world, task_id))["output"]["image_url"] == PICTURE["image_url"]
    assert len(await ends(world, task_id)) == 2


async def test_a_refresh_heals_a_task_that_failed_too_soon(world: World) -> None:
    task_id = await world.created(SILENT)
    await report(world, task_id, "failed", error=MODERATED)
    await advance(world, task_id, "completed", output=PICTURE)
    task = await refresh(world, task_id)
    assert (task["status"], task["error"], task["output"]["image_url"]) == ("completed", None, PICTURE["image_url"])


async def test_a_refresh_of_an_ended_task_that_has_no_news_changes_nothing(world: World) -> None:
    task_id = await world.created(SILENT)
    await report(world, task_id, "completed", output=PICTURE)
    before = await world.task(task_id)
    assert await refresh(world, task_id) == before


async def test_a_word_that_is_not_known_keeps_word_output_and_error_and_is_counted(world: World) -> None:
    task_id = await world.created(SILENT)
    await report(world, task_id, "quarantined", output=PICTURE, error=MODERATED)
    task = await world.task(task_id)
    assert (task["status"] in ("pending", "processing"), task["unknown_statuses"]) == (True, ["quarantined"])
    assert task["output"]["image_url"] == PICTURE["image_url"]
    assert task["error"]["message"] == "content moderated"
    metrics = (await world.api.get("/metrics")).text
    assert 'ringback_unknown_statuses_total{provider="piapi",status="quarantined"}' in metrics


async def test_a_wrong_clock_of_the_provider_neither_purges_a_task_nor_moves_its_creation(world: World) -> None:
    meta = {
        "created_at": "1970-01-01T00:00:00Z",
        "started_at": "1970-01-01T00:00:00Z",
        "ended_at": "1970-01-01T00:00:00Z",
    }
    task_id = await world.created(SILENT)
    await report(world, task_id, "completed", output=PICTURE, meta=meta)
    task = await world.task(task_id)
    assert task["ended_at"].startswith("1970-01-01T00:00:00")
    assert task["created_at"] > "2026"
    (row,) = select(world, f"SELECT updated_at, created_at FROM task WHERE uid = {_quoted(task_id)}")
    assert row["updated_at"] >= row["created_at"]


def _quoted(text: str) -> str:
    assert text.replace("-", "").isalnum()
    return f"'{text}'"


async def test_one_not_found_is_not_believed(world: World) -> None:
    task_id = await world.created(SILENT)
    uid = _quoted(task_id)
    await report(world, task_id, "processing")
    change(world, f"UPDATE task SET provider_task_id = 'gone-{task_id}' WHERE uid = {uid}")
    query = f"SELECT status, missing_count, missing_since FROM task WHERE uid = {uid}"
    for count in range(1, 5):
        await refresh(world, task_id)
        (row,) = select(world, query)
        assert (row["status"], row["missing_count"]) == ("processing", count)
        assert row["missing_since"] is not None


async def test_not_found_in_a_row_for_long_enough_is_believed_and_later_news_heals_the_task(world: World) -> None:
    task_id = await world.created(SILENT)
    uid = _quoted(task_id)
    await report(world, task_id, "processing")
    change(world, f"UPDATE task SET provider_task_id = 'gone-{task_id}' WHERE uid = {uid}")
    await refresh(world, task_id)
    change(world, f"UPDATE task SET missing_count = 2, missing_since = created_at WHERE uid = {uid}")
    assert (await refresh(world, task_id))["status"] == "processing"
    long_ago = f"'{write_moment(START)}'" if world.settings.is_sqlite else f"'{START.isoformat()}'"
    change(world, f"UPDATE task SET missing_since = {long_ago} WHERE uid = {uid}")
    task = await refresh(world, task_id)
    assert (task["status"], task["error"]["code"]) == ("failed", "provider_lost_task")
    await report(world, task_id, "completed", output=PICTURE)
    assert (await world.task(task_id))["status"] == "completed"
    assert [event["type"] for event in await ends(world, task_id)] == ["task.failed", "task.completed"]


async def test_a_poll_that_finds_the_task_forgets_earlier_not_founds(world: World) -> None:
    task_id = await world.created(SILENT)
    await report(world, task_id, "processing")
    change(world, f"UPDATE task SET missing_count = 2, missing_since = created_at WHERE uid = {_quoted(task_id)}")
    await refresh(world, task_id)
    rows = await eventually(
        world, f"SELECT missing_count, missing_since FROM task WHERE uid = {_quoted(task_id)}", lambda rows: rows
    )
    assert (rows[0]["missing_count"], rows[0]["missing_since"]) == (0, None)


async def test_a_result_with_the_wrong_secret_changes_no_ended_task(world: World) -> None:
    task_id = await world.created(SILENT)
    await report(world, task_id, "completed", output={})
    answer = await post(world, task_id, secret="wrong", json={"data": {"task_id": "x", "status": "completed"}})
    assert answer.status_code == 401
    assert len(await ends(world, task_id)) == 1
