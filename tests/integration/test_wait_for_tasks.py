"""`POST /api/v1/tasks/wait`: one long poll for several tasks."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.domain.ids import new_id
from receiver.storage.database import Database
from tests.fakes.pipeline import HELD
from tests.fakes.rows import eventually, select
from tests.fakes.world import World, in_process

Json = dict[str, Any]


async def wait(world: World, ids: list[str], mode: str, seconds: float = 20) -> httpx.Response:
    body = {"task_ids": ids, "mode": mode, "timeout_seconds": seconds}
    return await world.api.post("/api/v1/tasks/wait", json=body)


async def waited(world: World, ids: list[str], mode: str, seconds: float = 20) -> Json:
    answer = await wait(world, ids, mode, seconds)
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == answer.json()["data"]["object"] == "wait"
    return dict(answer.json()["data"])


async def end(world: World, task_id: str) -> None:
    """Let the provider complete a task that it holds."""
    rows = await eventually(
        world, f"SELECT provider_task_id FROM task WHERE uid = '{task_id}'", lambda rows: rows[0]["provider_task_id"]
    )
    done = {"status": "completed"}
    answer = await world.provider.post(f"/sandbox/tasks/{rows[0]['provider_task_id']}/advance", json=done)
    assert answer.status_code == 200, answer.text


async def test_any_is_answered_by_the_first_end_and_all_by_the_last(world: World) -> None:
    ids = [await world.created(HELD) for _ in range(3)]
    first, last = (asyncio.create_task(waited(world, ids, mode)) for mode in ("any", "all"))
    await end(world, ids[1])
    found = await first
    assert (found["timed_out"], found["ended"], found["mode"]) == (False, [ids[1]], "any")
    assert [each["task_id"] for each in found["tasks"]] == ids
    assert [each["has_ended"] for each in found["tasks"]] == [False, True, False]
    assert not last.done()
    for task_id in (ids[0], ids[2]):
        await end(world, task_id)
    found = await last
    assert (found["timed_out"], found["ended"]) == (False, ids)
    assert {each["status"] for each in found["tasks"]} == {"completed"}


async def test_what_has_not_ended_in_time_is_told_as_it_is(world: World) -> None:
    ended, held = await world.created(), await world.created(HELD)
    await world.ended(ended)
    found = await waited(world, [held, ended], "all", seconds=1)
    assert (found["timed_out"], found["ended"]) == (True, [ended])
    at_once = await waited(world, [held, ended, held], "any", seconds=30)
    assert (at_once["timed_out"], len(at_once["tasks"])) == (False, 2)


async def test_the_provider_s_ids_are_ids_too_and_unknown_ones_are_named(world: World) -> None:
    task_id = await world.created()
    name = (await world.ended(task_id))["provider_task_id"]
    found = await waited(world, [name, task_id.upper()], "all")
    assert [each["task_id"] for each in found["tasks"]] == [task_id, task_id]
    unknown = new_id()
    refused = await wait(world, [task_id, unknown, "no-such-task", "\x00"], "any")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (404, "task_not_found", "task_ids")
    assert unknown in error["message"]
    assert "'no-such-task'" in error["message"]
    assert task_id not in error["message"]


@pytest.mark.parametrize("ids", [[], [new_id()] * 1001, [""], "x"])
async def test_other_than_1_to_1000_ids_are_refused(world: World, ids: Any) -> None:
    assert (await wait(world, ids, "any")).status_code == 400


async def test_a_thousand_tasks_are_waited_for_without_reading_them_all_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_process(tmp_path, provider_rate="1/h", stop_seconds="2") as world:
        first = await world.created(HELD)
        tasks = [{"model": "m", "task_type": "t", "input": {}}] * 999
        made = (await world.api.post("/api/v1/tasks", json={"tasks": tasks})).json()["data"]["data"]
        ids = [first, *(each["task_id"] for each in made)]
        await eventually(
            world, f"SELECT status FROM task WHERE uid = '{first}'", lambda rows: rows[0]["status"] != "queued"
        )
        read = Database.read
        sizes: list[int] = []

        async def counting(self: Database, statement: Any, *rest: Any) -> Any:
            rows = await read(self, statement, *rest)
            if rows and rows[0].keys() >= {"uid", "progress"} and "model" not in rows[0]:
                sizes.append(len(rows))
            return rows

        monkeypatch.setattr(Database, "read", counting)
        waiting = asyncio.create_task(waited(world, ids, "any"))
        await eventually(world, "SELECT 1", lambda _: len(sizes) == 2)  # which there are, then how far they are
        await end(world, first)
        assert (await waiting)["ended"] == [first]
        assert sizes[:2] == [1000, 1000]
        assert set(sizes[2:-1]) == {1}
        assert sizes[-1] == 1000  # for the answer: none are held while it waits


async def test_a_read_key_may_wait_and_an_idempotency_key_replays_no_old_state(world: World) -> None:
    key = (await world.api.post("/api/v1/keys", json={"name": "reader", "scope": "read"})).json()["data"]["key"]
    task_id = await world.created(HELD)
    body = {"task_ids": [task_id], "timeout_seconds": 1}
    headers = {"x-api-key": key, "idempotency-key": "k"}
    first = await world.api.post("/api/v1/tasks/wait", json=body, headers=headers)
    assert first.json()["data"]["timed_out"] is True
    await end(world, task_id)
    second = await world.api.post("/api/v1/tasks/wait", json=body, headers=headers)
    assert second.json()["data"]["timed_out"] is False
    assert "x-idempotency-replayed" not in second.headers
    assert select(world, "SELECT 1 FROM idempotency_key") == []
