"""`kill -9` at named points: what was acknowledged is there, nothing is made twice, everybody is told."""

import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.sandbox import SandboxOptions
from tests.fakes.inbound import report
from tests.fakes.rows import select
from tests.fakes.world import FAST_POLLING, ProcessWorld, in_processes

PATIENT = SandboxOptions(duration=0.05, pending_seconds=0.0, webhook_retry_seconds=0.2, webhook_attempts=60)
"""A provider whose webhooks outlast a restart."""
BY_HAND = {"outcome": "never", "webhook": "lost"}
"""A task whose webhooks are the test's to send."""
PICTURE = {"image_url": "https://example.com/i.png"}


async def create_until_death(world: ProcessWorld, script: dict[str, Any] | None = None) -> str:
    """Create a task that kills the service; return its id, which the client never heard, from the disk."""
    with pytest.raises(httpx.TransportError):
        await world.create(script)
    await world.died()
    (row,) = select(world, "SELECT uid, status FROM task")
    assert row["status"] == "queued"
    return str(row["uid"])


async def completes_once(world: ProcessWorld, task_id: str) -> list[dict[str, Any]]:
    """Check that the task completes, was made once, and has no event twice; return its events."""
    assert (await world.ended(task_id))["status"] == "completed"
    stats = await world.provider_stats()
    assert stats["created"] == 1
    events = await world.events(task_id)
    assert len({(event["type"], event["data"]["status"]) for event in events}) == len(events)
    return events


async def test_after_the_provider_s_answer_the_task_that_it_made_is_found_again(tmp_path: Path) -> None:
    async with in_processes(tmp_path, PATIENT, start=False) as world:
        await world.start(crash="after_the_providers_answer")
        await world.webhook()
        task_id = await create_until_death(world)
        await world.start()
        events = await completes_once(world, task_id)
        await world.subscriber.until(lambda heard: heard)
        assert [heard.event_id for heard in world.subscriber.heard] == [events[-1]["id"]]


async def test_after_the_provider_s_answer_its_history_tells_which_task_it_made(tmp_path: Path) -> None:
    async with in_processes(tmp_path, public=False, start=False, **FAST_POLLING) as world:
        await world.start(crash="after_the_providers_answer")
        await world.webhook()
        task_id = await create_until_death(world)
        await world.start()
        events = await completes_once(world, task_id)
        assert events[-1]["data"]["source"] == "poll"
        await world.subscriber.until(lambda heard: heard)
        assert [heard.event_id for heard in world.subscriber.heard] == [events[-1]["id"]]


async def test_after_the_provider_s_answer_our_own_address_in_its_history_is_enough(tmp_path: Path) -> None:
    async with in_processes(tmp_path, start=False, **FAST_POLLING) as world:
        await world.start(crash="after_the_providers_answer")
        task_id = await create_until_death(world, {"webhook": "lost"})
        await world.start()
        await completes_once(world, task_id)


async def test_a_task_that_the_provider_never_made_fails_and_is_not_sent_again(tmp_path: Path) -> None:
    async with in_processes(tmp_path, start=False, submission_unknown_seconds="1") as world:
        await world.start(crash="after_the_providers_answer")
        task_id = await create_until_death(world, {"submit": "unavailable"})
        await world.start()
        task = await world.ended(task_id)
        assert (task["status"], task["error"]["code"]) == ("failed", "submission_unknown")
        assert (await world.provider_stats())["requests"]["POST /api/v1/task"] == 1


async def test_before_the_commit_of_a_webhook_nothing_is_acknowledged_and_nothing_is_there(tmp_path: Path) -> None:
    async with in_processes(tmp_path, start=False) as world:
        task_id, before = await killed_by_a_webhook(world, "before_the_commit_of_a_webhook")
        await world.start()
        assert await world.events(task_id) == before
        assert (await report(world, task_id, "completed", output=PICTURE)).status_code == 200
        await told_once(world, task_id)


async def test_after_the_commit_before_the_200_it_is_there_and_the_repeat_changes_nothing(tmp_path: Path) -> None:
    async with in_processes(tmp_path, start=False) as world:
        task_id, before = await killed_by_a_webhook(world, "after_the_commit_before_the_200")
        await world.start()
        after = await world.events(task_id)
        assert [event["type"] for event in after[len(before) :]] == ["task.completed"]
        assert (await report(world, task_id, "completed", output=PICTURE)).status_code == 200
        assert await world.events(task_id) == after
        await told_once(world, task_id)


@pytest.mark.parametrize("point", ["before_the_commit_of_a_webhook", "after_the_commit_before_the_200"])
async def test_the_provider_s_own_repeats_end_the_task_after_a_kill(tmp_path: Path, point: str) -> None:
    async with in_processes(tmp_path, PATIENT, start=False) as world:
        await world.start(crash=point)
        await world.webhook()
        with contextlib.suppress(httpx.TransportError):
            await world.create()
        await world.died()
        await world.start()
        (row,) = select(world, "SELECT uid FROM task")
        await completes_once(world, row["uid"])
        await told_once(world, row["uid"])


async def test_after_sending_before_settling_it_is_sent_again_with_the_same_id(tmp_path: Path) -> None:
    async with in_processes(tmp_path, start=False, **FAST_POLLING) as world:
        await world.start(crash="after_sending_before_settling")
        await world.webhook()
        await world.create()
        await world.died()
        (first,) = world.subscriber.heard
        await world.start()
        await world.subscriber.until(lambda heard: len(heard) >= 2)
        first, second = world.subscriber.heard
        assert first.event_id == second.event_id
        assert first.body == second.body
        await completes_once(world, first.json["data"]["task_id"])


async def killed_by_a_webhook(world: ProcessWorld, point: str) -> tuple[str, list[dict[str, Any]]]:
    """Create a task and kill the service with the webhook of its end; return its id and its events until then."""
    await world.start(crash=point)
    await world.webhook()
    task_id = await world.created(BY_HAND)
    events = await world.events(task_id)
    with pytest.raises(httpx.TransportError):
        await report(world, task_id, "completed", output=PICTURE)
    await world.died()
    return task_id, events


async def told_once(world: ProcessWorld, task_id: str) -> None:
    """Check that the subscriber heard of the end, by the one id that history has for it."""
    ends = [event["id"] for event in await world.events(task_id) if event["type"] == "task.completed"]
    assert len(ends) == 1
    await world.subscriber.until(lambda heard: heard)
    assert {heard.event_id for heard in world.subscriber.heard} == set(ends)
