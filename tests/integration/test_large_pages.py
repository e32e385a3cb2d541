"""Lists of large rows: bounded pages that leave nothing out, and no more rows read than a page needs."""

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from receiver.storage.database import Database
from receiver.storage.large_rows import MOST_PAGE_BYTES, in_pieces
from receiver.storage.tasks import TaskFilter, large_tasks, tasks_matching
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNT = 6
SIZE = 1_000_000
ENVELOPE = 20_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A world with six tasks of a megabyte each, and a small one."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        for number in range(COUNT):
            await world.created(input={"prompt": random.Random(number).randbytes(SIZE // 2).hex()})
        await world.created()
        yield world


async def walked(world: World, path: str) -> tuple[list[dict[str, Any]], int]:
    """Return all items of a list, and how many pages it has."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 200}
    for pages in range(1, 50):
        answer = await world.api.get(path, params=query)
        assert answer.status_code == 200, answer.text[:500]
        assert len(answer.content) <= MOST_PAGE_BYTES + ENVELOPE
        data = answer.json()["data"]
        found += data["data"]
        if not data["has_more"]:
            assert data["next_cursor"] is None
            return found, pages
        assert data["data"], "a page has an item at least"
        query["cursor"] = data["next_cursor"]
    raise AssertionError("the list does not end")


async def test_pages_of_large_tasks_are_cut_and_leave_none_out(world: World) -> None:
    tasks, pages = await walked(world, "/api/v1/tasks")
    assert len({task["task_id"] for task in tasks}) == len(tasks) == COUNT + 1
    assert pages >= COUNT * SIZE // MOST_PAGE_BYTES


async def test_pages_of_large_events_are_cut_and_leave_none_out(world: World) -> None:
    events, pages = await walked(world, "/api/v1/events")
    assert [event["sequence"] for event in events] == sorted({event["sequence"] for event in events}, reverse=True)
    assert sum(event["type"] == "task.created" for event in events) == COUNT + 1
    assert pages > 1


async def test_a_tasks_own_events_are_cut_too(world: World) -> None:
    task = (await walked(world, "/api/v1/tasks"))[0][-1]
    events, _ = await walked(world, f"/api/v1/tasks/{task['task_id']}/events")
    assert events[-1]["type"] == "task.created"


async def test_a_page_of_histories_has_every_task_and_the_last_ones_without_their_documents(world: World) -> None:
    answer = await world.api.get("/api/open/tasks/histories", params={"page_size": 100})
    # Two names for the same list.
    assert len(answer.content) <= 2 * (MOST_PAGE_BYTES + SIZE) + ENVELOPE
    tasks = answer.json()["data"]["data"]
    assert len({task["task_id"] for task in tasks}) == COUNT + 1
    shortened = [task for task in tasks if task["meta"].get("is_shortened")]
    assert 0 < len(shortened) < COUNT
    assert tasks[-len(shortened) :] == shortened
    assert {task["input"] for task in shortened} == {None}
    second = await world.api.get("/api/open/tasks/histories", params={"page_size": 3, "page": 2})
    assert [task["task_id"] for task in second.json()["data"]["data"]] == [task["task_id"] for task in tasks[3:6]]


async def test_runs_are_cut_by_the_size_of_their_steps(world: World) -> None:
    step = {"id": "a", "action": "flux:txt2img", "input": {"prompt": "y" * SIZE}}
    for _ in range(COUNT):
        assert (await world.api.post("/api/v1/runs", json={"steps": [step]})).status_code == 202
    runs, _ = await walked(world, "/api/v1/runs")
    assert len({run["id"] for run in runs}) == COUNT


async def test_a_stream_has_every_large_event(world: World) -> None:
    wanted = [event["sequence"] for event in (await walked(world, "/api/v1/events"))[0]][::-1]
    found: list[int] = []
    headers = {"accept": "text/event-stream", "last-event-id": str(wanted[0] - 1)}
    async with world.api.stream("GET", "/api/v1/events", headers=headers) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("id: ") and int(line[4:]) >= wanted[0]:
                found.append(int(line[4:]))
            if found and found[-1] >= wanted[-1]:
                break
    assert found[-len(wanted) :] == wanted or found == wanted


async def test_large_rows_are_read_in_pieces(world: World) -> None:
    query = large_tasks(tasks_matching(TaskFilter(organization_id=1), 200))
    async with await Database.open(world.settings) as database:
        pieces = [(len(rows), len(rest)) async for rows, rest in in_pieces(database.read, query)]
    assert sum(count == 1 for count, _ in pieces) >= COUNT - 1
    assert pieces[-1][1] == 0


async def test_the_answer_to_a_large_create_has_all_that_is_stored(world: World) -> None:
    wanted = {"prompt": random.Random(99).randbytes(SIZE // 2).hex()}
    body = {"model": "Qubico/flux1-schnell", "task_type": "txt2img", "input": wanted, "config": {"service_mode": "pro"}}
    created = (await world.api.post("/api/v1/task", json=body)).json()["data"]
    read = (await world.api.get(f"/api/v1/task/{created['task_id']}")).json()["data"]
    assert created["input"] == wanted
    for name in ("input", "config", "model", "task_type", "error"):  # the others may change meanwhile
        assert created[name] == read[name]
    for name in ("created_at", "provider_task_id", "attempt"):
        assert created["meta"][name] == read["meta"][name]
