"""`kill -9` at named points: what was acknowledged is stored, nothing is created twice, every event is delivered."""

import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.inbound import PICTURE, SILENT, report
from tests.fakes.rows import select
from tests.fakes.world import FAST_POLLING, PERSISTENT, ProcessWorld, in_processes

pytestmark = pytest.mark.with_locks_too


async def create_until_death(world: ProcessWorld, script: dict[str, Any] | None = None) -> str:
    """Create a task in a way that kills the service; return its id from the database, as there is no response."""
    with pytest.raises(httpx.TransportError):
        await world.create(script)
    await world.died()
    (row,) = select(world, "SELECT uid, status FROM task")
    assert row["status"] == "queued"
    return str(row["uid"])


async def completes_once(world: ProcessWorld, task_id: str) -> list[dict[str, Any]]:
    """Check that the task completes, was created once at the provider and has no event twice; return its events."""
    assert (await world.ended(task_id))["status"] == "completed"
    stats = await world.provider_stats()
    assert stats["created"] == 1
    events = await world.events(task_id)
    assert len({(event["type"], event["data"]["status"]) for event in events}) == len(events)
    return events


async def test_after_the_provider_s_answer_its_webhook_identifies_the_task_that_it_created(tmp_path: Path) -> None:
    async with in_processes(tmp_path, PERSISTENT, start=False) as world:
        await world.start(crash="after_the_providers_answer")
        await world.webhook()
        task_id = await create_until_death(world)
        await world.start()
        events = await completes_once(world, task_id)
        await world.subscriber.until(lambda received: received)
        assert [received.event_id for received in world.subscriber.received] == [events[-1]["id"]]


async def test_after_the_provider_s_answer_its_history_identifies_the_task_that_it_created(tmp_path: Path) -> None:
    async with in_processes(tmp_path, public=False, start=False, **FAST_POLLING) as world:
        await world.start(crash="after_the_providers_answer")
        await world.webhook()
        task_id = await create_until_death(world)
        await world.start()
        events = await completes_once(world, task_id)
        assert events[-1]["source"] == "poll"
        await world.subscriber.until(lambda received: received)
        assert [received.event_id for received in world.subscriber.received] == [events[-1]["id"]]


async def test_after_the_provider_s_answer_the_webhook_url_in_its_history_identifies_the_task(tmp_path: Path) -> None:
    async with in_processes(tmp_path, start=False, **FAST_POLLING) as world:
        await world.start(crash="after_the_providers_answer")
        task_id = await create_until_death(world, {"webhook": "lost"})
        await world.start()
        await completes_once(world, task_id)


async def test_a_task_that_the_provider_never_created_fails_and_is_not_sent_again(tmp_path: Path) -> None:
    async with in_processes(tmp_path, start=False, submission_unknown_seconds="1") as world:
        await world.start(crash="after_the_providers_answer")
        task_id = await create_until_death(world, {"submit": "unavailable"})
        await world.start()
        task = await world.ended(task_id)
        assert (task["status"], task["error"]["code"]) == ("failed", "submission_unknown")
        assert (await world.provider_stats())["requests"]["POST /api/v1/task"] == 1


async def test_before_the_commit_of_a_webhook_nothing_is_acknowledged_and_nothing_is_stored(tmp_path: Path) -> None:
    async with in_processes(tmp_path, start=False) as world:
        task_id, before = await killed_by_a_webhook(world, "before_the_commit_of_a_webhook")
        await world.start()
        assert await world.events(task_id) == before
        assert (await report(world, task_id, "completed", output=PICTURE)).status_code == 200
        await end_has_one_event(world, task_id)


async def test_after_the_commit_before_the_200_the_webhook_is_stored_and_a_repeat_changes_nothing(
    tmp_path: Path,
) -> None:
    async with in_processes(tmp_path, start=False) as world:
        task_id, before = await killed_by_a_webhook(world, "after_the_commit_before_the_200")
        await world.start()
        after = await world.events(task_id)
        assert [event["type"] for event in after[len(before) :]] == ["task.completed"]
        assert (await report(world, task_id, "completed", output=PICTURE)).status_code == 200
        assert await world.events(task_id) == after
        await end_has_one_event(world, task_id)


@pytest.mark.parametrize("point", ["before_the_commit_of_a_webhook", "after_the_commit_before_the_200"])
async def test_after_a_kill_a_webhook_that_the_provider_repeats_ends_the_task(tmp_path: Path, point: str) -> None:
    async with in_processes(tmp_path, PERSISTENT, start=False) as world:
        await world.start(crash=point)
        await world.webhook()
        with contextlib.suppress(httpx.TransportError):
            await world.create()
        await world.died()
        await world.start()
        (row,) = select(world, "SELECT uid FROM task")
        await completes_once(world, row["uid"])
        await end_has_one_event(world, row["uid"])


async def test_a_delivery_sent_before_the_kill_but_not_settled_is_sent_again_with_the_same_id(tmp_path: Path) -> None:
    async with in_processes(tmp_path, start=False, **FAST_POLLING) as world:
        await world.start(crash="after_sending_before_settling")
        await world.webhook()
        await world.create()
        await world.died()
        (first,) = world.subscriber.received
        await world.start()
        await world.subscriber.until(lambda received: len(received) >= 2)
        first, second = world.subscriber.received
        assert first.event_id == second.event_id
        assert first.body == second.body
        await completes_once(world, first.json["data"]["task_id"])


async def killed_by_a_webhook(world: ProcessWorld, point: str) -> tuple[str, list[dict[str, Any]]]:
    """Create a task and kill the service by the webhook of its end; return its id and its events before that."""
    await world.start(crash=point)
    await world.webhook()
    task_id = await world.created(SILENT)
    events = await world.events(task_id)
    with pytest.raises(httpx.TransportError):
        await report(world, task_id, "completed", output=PICTURE)
    await world.died()
    return task_id, events


async def end_has_one_event(world: ProcessWorld, task_id: str) -> None:
    """Check that the task has one event for its end, and that the subscriber received that event and no other."""
    ends = [event["id"] for event in await world.events(task_id) if event["type"] == "task.completed"]
    assert len(ends) == 1
    await world.subscriber.until(lambda received: received)
    assert {received.event_id for received in world.subscriber.received} == set(ends)
