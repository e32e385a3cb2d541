"""Cancelling, retrying and refreshing every task that matches: exact numbers, progress, every rule of a single one."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.domain.ids import new_id
from tests.fakes.organizations import another_organization
from tests.fakes.pipeline import FAILS, HELD, WAITING, begin, ended, step
from tests.fakes.rows import change, eventually, select
from tests.fakes.world import World, in_process

Json = dict[str, Any]
TASK = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat"}}
LONG_AGO = "2020-01-01T00:00:00Z"
RUNNING_ELSEWHERE = (
    "INSERT INTO bulk_action (uid, organization_id, kind, requested_by, status, filter, matched, done, cursor, newest, "
    "due_at, leased, created_at) SELECT ?, id, 'cancel', 'it', 'running', '{}', 3, 0, 0, 1000, "
    "'2100-01-01 00:00:00.000000', true, "
    "created_at FROM organization"
)
"""A bulk action of all tasks whose lease another process holds."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with in_process(tmp_path) as world:
        yield world


async def ask(world: World, what: str, **body: Any) -> httpx.Response:
    return await world.api.post(f"/api/v1/tasks/{what}", json=body)


async def count(world: World, what: str, **body: Any) -> int:
    answer = await ask(world, what, **body, dry_run=True)
    assert (answer.status_code, answer.json()["object"]) == (200, "dry_run"), answer.text
    return int(answer.json()["data"]["matched"])


async def until_ended(world: World, asked: httpx.Response) -> Json:
    assert asked.status_code == 202, asked.text
    uid = asked.json()["data"]["id"]
    return await until(world, uid, lambda found: found["status"] != "running")


async def until(world: World, uid: str, enough: Callable[[Json], Any]) -> Json:
    while True:
        found = (await world.api.get(f"/api/v1/bulk-actions/{uid}")).json()["data"]
        if enough(found):
            return dict(found)
        assert (await world.api.get("/readyz")).status_code == 200


async def made(world: World, number: int, **fields: Any) -> list[str]:
    answer = await world.api.post("/api/v1/tasks", json={"tasks": [{**TASK, **fields}] * number})
    return [each["task_id"] for each in answer.json()["data"]["data"]]


def statuses(world: World) -> Counter[str]:
    return Counter(row["status"] for row in select(world, "SELECT status FROM task"))


async def test_a_cancel_touches_what_matched_and_nothing_else(tmp_path: Path) -> None:
    async with in_process(tmp_path, provider_rate="1/h", stop_seconds="2") as world:
        held = await world.created(HELD)
        wanted = await made(world, 70, metadata={"order": 7})
        others = await made(world, 5, metadata={"order": 8})
        assert await count(world, "cancel", metadata={"order": "7"}) == 70
        assert await count(world, "cancel", all=True) == 76
        assert await count(world, "cancel", model="flux", status="failed") == 0
        assert await count(world, "cancel", created_before=LONG_AGO) == 0
        done = await until_ended(world, await ask(world, "cancel", metadata={"order": "7"}))
        assert (done["kind"], done["status"], done["matched"], done["done"]) == ("cancel", "done", 70, 70)
        assert (done["failed"], done["failed_by_code"], done["filter"]) == (0, {}, {"metadata": {"order": "7"}})
        assert done["ended_at"]
        cancelled = {row["uid"] for row in select(world, "SELECT uid FROM task WHERE status = 'cancelled'")}
        assert cancelled == set(wanted)
        assert held not in cancelled
        assert not cancelled & set(others)
        listing = (await world.api.get("/api/v1/bulk-actions")).json()["data"]["data"]
        assert listing == [done]
        entries = (await world.api.get("/api/v1/audit", params={"action": "task.cancel_many"})).json()["data"]["data"]
        assert [(entry["target"], entry["after"]["tasks"]) for entry in entries] == [(done["id"], 70)]


async def test_what_the_provider_refuses_is_counted_by_its_code(world: World) -> None:
    waiting, held = await world.created(WAITING), await world.created(HELD)
    await eventually(
        world, "SELECT status FROM task", lambda rows: {row["status"] for row in rows} == {"pending", "processing"}
    )
    done = await until_ended(world, await ask(world, "cancel", all=True))
    assert (done["matched"], done["done"], done["failed"]) == (2, 1, 1)
    assert done["failed_by_code"] == {"provider_refused": 1}
    assert [(await world.task(each))["status"] for each in (waiting, held)] == ["cancelled", "processing"]


async def test_a_retry_begins_one_more_attempt_of_each_and_leaves_steps_to_their_runs(world: World) -> None:
    ids = [await world.created(FAILS) for _ in range(40)]
    for task_id in ids:
        await world.ended(task_id)
    await ended(world, await begin(world, {**step("a", sandbox=FAILS), "action": "flux:txt2img"}))
    assert await count(world, "retry", status="failed") == 40
    done = await until_ended(world, await ask(world, "retry", status="failed"))
    assert (done["matched"], done["done"], done["failed"]) == (40, 40, 0)
    await eventually(world, "SELECT status FROM task", lambda rows: {row["status"] for row in rows} == {"failed"})
    attempts = Counter(row["attempt"] for row in select(world, "SELECT attempt FROM task WHERE run_uid IS NULL"))
    assert attempts == {2: 40}  # they failed again, and are not retried again
    assert select(world, "SELECT attempt FROM task WHERE run_uid IS NOT NULL") == [{"attempt": 1}]


async def test_a_refresh_polls_what_the_provider_has_and_that_has_not_ended(world: World) -> None:
    wanted, other = await world.created(HELD, metadata={"order": 7}), await world.created(HELD)
    over = await world.created(metadata={"order": 7})
    await world.ended(over)
    at_work = "SELECT 1 FROM task WHERE status = 'processing'"
    await eventually(world, at_work, lambda rows: len(rows) == 2)
    change(world, "UPDATE task SET due_at = '2100-01-01 00:00:00.000000' WHERE status = 'processing'")
    assert await count(world, "refresh", metadata={"order": "7"}) == 1
    assert await count(world, "refresh", all=True) == 2
    done = await until_ended(world, await ask(world, "refresh", metadata={"order": "7"}))
    assert (done["kind"], done["matched"], done["done"], done["failed"]) == ("refresh", 1, 1, 0)
    entries = (await world.api.get("/api/v1/audit", params={"action": "task.refresh_many"})).json()["data"]["data"]
    assert [(entry["target"], entry["actor"]) for entry in entries] == [(done["id"], done["requested_by"])]
    polled = "SELECT uid FROM task WHERE poll_count > 0 AND due_at < '2100-01-01 00:00:00.000000'"
    assert await eventually(world, polled, lambda rows: rows) == [{"uid": wanted}]
    waits = "SELECT uid FROM task WHERE due_at >= '2100-01-01 00:00:00.000000'"
    assert select(world, waits) == [{"uid": other}]


async def test_a_refresh_waits_between_batches_for_the_provider_s_limit(tmp_path: Path) -> None:
    async with in_process(tmp_path, provider_rate="1/h", stop_seconds="2") as world:
        await made(world, 33)
        at_provider = "status = 'processing', submission = 'accepted', provider_task_id = uid"
        change(world, f"UPDATE task SET {at_provider}, leased = false, due_at = '2100-01-01 00:00:00.000000'")
        asked = await ask(world, "refresh", all=True)
        uid = asked.json()["data"]["id"]
        half_done = await until(world, uid, lambda found: found["done"] == 32)
        (row,) = await eventually(world, "SELECT due_at FROM bulk_action WHERE NOT leased", lambda rows: rows)
        assert (half_done["status"], str(row["due_at"])[:10] > half_done["created_at"][:10]) == ("running", True)
        due = "SELECT uid FROM task WHERE due_at < '2099-01-01 00:00:00.000000'"
        assert len(select(world, due)) == 32
        assert (await world.api.post(f"/api/v1/bulk-actions/{uid}/cancel")).status_code == 200


async def test_tasks_of_others_and_of_later_are_not_touched(tmp_path: Path) -> None:
    async with in_process(tmp_path, provider_rate="1/h", stop_seconds="2") as world:
        await world.created(HELD)  # the only one that is sent
        theirs = another_organization(world)
        await world.api.post("/api/v1/tasks", json={"tasks": [TASK] * 3}, headers=theirs)
        await made(world, 3)
        asked = await ask(world, "cancel", model="flux")
        later = await made(world, 3)
        done = await until_ended(world, asked)
        assert (done["matched"], done["done"]) == (3, 3)
        assert (statuses(world)["cancelled"], statuses(world)["queued"]) == (3, 6)
        assert [(await world.task(each))["status"] for each in later] == ["queued"] * 3
        for path in ("", f"/{done['id']}"):
            answer = await world.api.get(f"/api/v1/bulk-actions{path}", headers=theirs)
            assert answer.status_code == 404 or answer.json()["data"]["data"] == []


async def test_one_that_was_cancelled_begins_no_further_batch(tmp_path: Path) -> None:
    async with in_process(tmp_path, provider_rate="1/h", stop_seconds="2") as world:
        await world.created(HELD)  # the only one that is sent
        await made(world, 3)
        uid = new_id()
        change(world, RUNNING_ELSEWHERE, uid)
        assert (await world.api.get(f"/api/v1/bulk-actions/{uid}")).json()["data"]["status"] == "running"
        answer = await world.api.post(f"/api/v1/bulk-actions/{uid}/cancel")
        assert (answer.status_code, answer.json()["data"]["status"]) == (200, "cancelled")
        assert (await world.api.post(f"/api/v1/bulk-actions/{uid}/cancel")).status_code == 409
        assert (await until_ended(world, await ask(world, "cancel", model="no-such-model")))["matched"] == 0
        assert (statuses(world)["cancelled"], statuses(world)["queued"]) == (0, 3)


async def test_a_retry_waits_while_the_organization_may_have_no_more_open_tasks(world: World) -> None:
    await world.ended(await world.created(FAILS))
    await world.created(HELD)
    own = (await world.api.get("/api/v1/organization")).json()["data"]["id"]
    await world.api.patch(f"/api/v1/organizations/{own}", json={"limits": {"open_tasks": 1}})
    asked = await ask(world, "retry", status="failed")
    uid = asked.json()["data"]["id"]
    query = "SELECT done, failed, status FROM bulk_action WHERE NOT leased AND batch IS NOT NULL"
    (row,) = await eventually(world, query, lambda rows: rows)
    assert (row["done"], row["failed"], row["status"]) == (0, None, "running")
    assert select(world, "SELECT 1 FROM task WHERE attempt = 2") == []
    await world.api.patch(f"/api/v1/organizations/{own}", json={"limits": {"open_tasks": 5}})
    change(world, "UPDATE bulk_action SET due_at = created_at")
    assert (await until(world, uid, lambda found: found["status"] != "running"))["done"] == 1


async def test_ten_run_at_a_time_and_another_one_is_refused(world: World) -> None:
    for _ in range(10):
        change(world, RUNNING_ELSEWHERE, new_id())
    await world.created(HELD)
    refused = await ask(world, "cancel", all=True)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "organization_limit_reached")
    assert await count(world, "cancel", all=True) == 1
    first = (await world.api.get("/api/v1/bulk-actions")).json()["data"]["data"][0]["id"]
    assert (await world.api.post(f"/api/v1/bulk-actions/{first}/cancel")).status_code == 200
    assert (await ask(world, "cancel", all=True)).status_code == 202


@pytest.mark.parametrize(
    "body",
    [{}, {"dry_run": True}, {"all": False}, {"metadata": {}}, {"all": True, "model": "m"}, {"colour": "red"}],
    ids=str,
)
@pytest.mark.parametrize("what", ["cancel", "retry"])
async def test_a_request_without_a_filter_is_refused(world: World, what: str, body: Json) -> None:
    answer = await ask(world, what, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request_body")
    assert select(world, "SELECT 1 FROM bulk_action") == []


async def test_a_read_key_counts_and_changes_nothing(world: World) -> None:
    key = (await world.api.post("/api/v1/keys", json={"name": "reader", "scope": "read"})).json()["data"]["key"]
    for body in ({"all": True}, {"all": True, "dry_run": True}):
        answer = await world.api.post("/api/v1/tasks/cancel", json=body, headers={"x-api-key": key})
        assert answer.status_code == 403
