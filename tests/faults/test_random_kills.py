"""`kill -9` at random moments under load: everything that was acknowledged is there, and everything ends."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.sandbox import SandboxOptions
from tests.fakes.inbound import notice
from tests.fakes.world import ProcessWorld, in_processes

SHARED_SECRET = "for-tasks-that-were-created-elsewhere"
PROVIDER = SandboxOptions(duration=0.3, pending_seconds=0.05, webhook_retry_seconds=0.3, lose_share=0.1)
SETTINGS: Mapping[str, Any] = {
    "poll_first_seconds": "0.5",
    "poll_max_seconds": "1",
    "submission_unknown_seconds": "2",
    "piapi_webhook_secret": SHARED_SECRET,
}
CREATES, REPORTS, AT_ONCE, KILLS = 110, 60, 6, 4


@dataclass
class Load:
    """What clients and the provider do meanwhile, and what they were told."""

    world: ProcessWorld
    created: list[str] = field(default_factory=list)
    """Ids of tasks whose create was answered with 200."""
    reported: list[str] = field(default_factory=list)
    """Provider's ids of webhooks that were answered with 200."""
    unanswered: int = 0
    alive: asyncio.Event = field(default_factory=asyncio.Event)
    progress: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def answers(self) -> int:
        return len(self.created) + len(self.reported)

    async def run(self) -> None:
        """Create and report, `AT_ONCE` of each side by side."""
        creates, reports = iter(range(CREATES)), iter(range(REPORTS))
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._create_each(creates))
                group.create_task(self._report_each(reports))

    async def reaches(self, answers: int) -> None:
        """Wait until so many were acknowledged."""
        async with self.progress:
            await self.progress.wait_for(lambda: self.answers >= answers)

    async def _create_each(self, numbers: Any) -> None:
        for number in numbers:
            await self.alive.wait()
            try:
                answer = await self.world.create(input={"prompt": f"picture {number}"})
            except httpx.TransportError:
                self.unanswered += 1  # never repeated: it may have been made
                continue
            if answer.status_code == 200:
                await self._note(self.created, answer.json()["data"]["task_id"])

    async def _report_each(self, numbers: Any) -> None:
        for number in numbers:
            provider_id = f"elsewhere-{number}"
            while provider_id not in self.reported:  # a provider sends again what was not acknowledged
                await self.alive.wait()
                try:
                    answer = await self._report(provider_id)
                except httpx.TransportError:
                    continue
                if answer.status_code == 200:
                    await self._note(self.reported, provider_id)

    async def _report(self, provider_id: str) -> httpx.Response:
        return await self.world.provider.post(
            f"{self.world.base}/hooks/piapi",
            json=notice(provider_id, "completed", output={"image_url": "https://example.com/i.png"}),
            headers={"x-webhook-secret": SHARED_SECRET},
        )

    async def _note(self, acknowledged: list[str], task_id: str) -> None:
        async with self.progress:
            acknowledged.append(task_id)
            self.progress.notify_all()


async def kill_at_random(world: ProcessWorld, load: Load, dice: random.Random) -> None:
    """Kill the service and start it again, at moments that depend on the dice and on how far the load is."""
    share = (CREATES + REPORTS) // (KILLS + 1)
    for number in range(KILLS):
        await load.reaches(share * number + dice.randrange(5, share))
        load.alive.clear()
        await world.kill()
        await world.start()
        load.alive.set()


@pytest.mark.parametrize("seed", [20])
async def test_what_was_acknowledged_is_there_and_everything_ends(tmp_path: Path, seed: int) -> None:
    async with in_processes(tmp_path, PROVIDER, **SETTINGS) as world:
        await world.webhook()
        load = Load(world)
        load.alive.set()
        async with asyncio.timeout(60):
            await asyncio.gather(load.run(), kill_at_random(world, load, random.Random(seed)))
        tasks = await every_task(world)
        await acknowledged_creates_completed(tasks, load)
        acknowledged_webhooks_are_there(tasks, load)
        await nothing_was_made_twice(world, tasks)
        await told_of_each_end_by_one_id(world, tasks)


async def every_task(world: ProcessWorld) -> dict[str, dict[str, Any]]:
    """Return all tasks when all of them have ended, by id."""
    ids: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await world.api.get("/api/v1/tasks", params={"limit": 200, "cursor": cursor})).json()["data"]
        ids += [task["task_id"] for task in page["data"]]
        cursor = page["next_cursor"]
    return {task["task_id"]: task for task in await asyncio.gather(*(world.ended(task_id) for task_id in ids))}


async def acknowledged_creates_completed(tasks: dict[str, dict[str, Any]], load: Load) -> None:
    assert len(load.created) + load.unanswered == CREATES
    assert {tasks[task_id]["status"] for task_id in load.created} == {"completed"}
    assert len(tasks) <= CREATES + REPORTS


def acknowledged_webhooks_are_there(tasks: dict[str, dict[str, Any]], load: Load) -> None:
    by_provider_id = {task["provider_task_id"]: task for task in tasks.values()}
    assert len(load.reported) == REPORTS
    assert {by_provider_id[provider_id]["status"] for provider_id in load.reported} == {"completed"}


async def nothing_was_made_twice(world: ProcessWorld, tasks: dict[str, dict[str, Any]]) -> None:
    """One provider task a task; and what is given up as never made was never made."""
    by_endpoint = (await world.provider_stats())["by_endpoint"]
    assert max(by_endpoint.values()) == 1
    made = {endpoint.rpartition("/")[2] for endpoint in by_endpoint}
    assert made <= tasks.keys()
    for task_id in made:
        assert tasks[task_id]["status"] == "completed", tasks[task_id]
    never_made = [task for task in tasks.values() if task["status"] != "completed"]
    assert {task["error"]["code"] for task in never_made} <= {"submission_unknown"}


async def told_of_each_end_by_one_id(world: ProcessWorld, tasks: dict[str, dict[str, Any]]) -> None:
    def told() -> dict[str, set[str]]:
        ids: dict[str, set[str]] = {task_id: set() for task_id in tasks}
        for heard in world.subscriber.accepted:
            ids[heard.json["data"]["task_id"]].add(heard.event_id)
        return ids

    await world.subscriber.until(lambda _heard: all(told().values()))
    for task_id, ids in told().items():
        ends = [event["id"] for event in await world.events(task_id) if event["type"] in _ENDS]
        assert len(ends) == 1
        assert ids == set(ends)


_ENDS = ("task.completed", "task.failed")
