"""A COMMIT that is held: 504, what depends on it is not sent until it is known, and a repeated key gets the truth."""

import asyncio
from pathlib import Path

import httpx
import pytest

from models import Submission, TaskStatus
from receiver.domain.ids import new_id
from receiver.storage import set_apart
from receiver.storage.postgresql import connection
from tests.fakes.held_commits import HELD, end_held_commits, held_commits
from tests.fakes.inbound import notice, post
from tests.fakes.rows import change, eventually, select
from tests.fakes.world import World, in_process
from tests.integration.test_idempotency_at_once import replica

pytestmark = pytest.mark.postgresql_only("an answer can only get lost between two processes")

TASK = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat"}}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.6)


async def creates_of(world: World) -> int:
    return int((await world.provider_stats())["created"])


async def test_a_create_that_is_not_known_to_be_on_disk_is_sent_when_it_is(world: World) -> None:
    with held_commits(world.database):
        answer = await world.api.post("/api/v1/task", json=TASK)
        assert (answer.status_code, answer.json()["code"]) == (504, 504)
        assert "Idempotency-Key" in answer.json()["message"]
        assert select(world, "SELECT uid FROM task") == []
        assert await creates_of(world) == 0
    (row,) = await eventually(world, "SELECT uid FROM task", lambda rows: rows)
    task = await world.ended(row["uid"])
    assert (task["status"], task["attempt"]) == ("completed", 1)
    assert await creates_of(world) == 1


async def test_a_create_that_came_to_nothing_is_never_sent_and_its_key_makes_it_once(world: World) -> None:
    key = {"idempotency-key": new_id()}
    with held_commits(world.database):
        first = await world.api.post("/api/v1/task", json=TASK, headers=key)
        assert first.status_code == 504
        second = asyncio.create_task(world.api.post("/api/v1/task", json=TASK, headers=key))
        await asyncio.sleep(0)
        end_held_commits(world.database)
    answer = await second
    assert answer.status_code == 200
    await world.ended(answer.json()["data"]["task_id"])
    assert len(select(world, "SELECT uid FROM task")) == await creates_of(world) == 1


async def test_a_key_whose_create_is_not_known_waits_for_the_outcome_and_gets_the_task(world: World) -> None:
    key = {"idempotency-key": new_id()}

    async def ask() -> httpx.Response:
        return await world.api.post("/api/v1/task", json=TASK, headers=key)

    with held_commits(world.database):
        assert (await ask()).status_code == 504
        again = asyncio.create_task(ask())
        done, _ = await asyncio.wait({again}, timeout=0.2)
        assert not done
    answer = await again
    assert answer.status_code == 200
    (row,) = select(world, "SELECT uid FROM task")
    assert answer.json()["data"]["task_id"] == row["uid"]
    await world.ended(row["uid"])
    assert await creates_of(world) == 1


async def test_a_webhook_whose_commit_is_held_is_a_5xx_and_its_repetition_changes_nothing(world: World) -> None:
    await world.webhook(event_types=["task.completed"])
    task_id = await world.created({"outcome": "never", "webhook": "lost"})
    body = notice((await world.task(task_id))["provider_task_id"], "completed", output={"image_url": "https://e.com/i"})
    with held_commits(world.database):
        assert (await post(world, task_id, json=body)).status_code == 504
        assert world.subscriber.received == []
    await eventually(world, "SELECT status FROM delivery", lambda rows: rows and rows[0]["status"] == "delivered")
    assert (await post(world, task_id, json=body)).status_code == 200
    assert len(world.subscriber.received) == 1


async def test_a_task_whose_intent_is_not_known_in_time_is_not_sent_and_is_sent_later(tmp_path: Path) -> None:
    async with in_process(tmp_path, submission_unknown_seconds="2") as world:
        failed = await world.ended(await world.created({"fail_attempts": 1, "key": new_id()}))
        before = await creates_of(world)
        with held_commits(world.database, when="NEW.attempt = 2 AND NEW.submission = 'sending'"):
            assert (await world.api.post(f"/api/v1/tasks/{failed['task_id']}/retry")).status_code == 200
            await eventually(world, HELD, lambda rows: rows)
            await world.webhook()  # is stored after the writer has given up waiting for the intent
            assert await creates_of(world) == before
        done = await world.ended(failed["task_id"])
        assert (done["status"], done["attempt"], done["submission"]) == (TaskStatus.COMPLETED, 2, Submission.ACCEPTED)
        assert await creates_of(world) == before + 1


async def test_a_create_whose_process_died_while_its_commit_was_held_is_found_by_another_process(
    world: World,
) -> None:
    key = {"idempotency-key": new_id()}
    with held_commits(world.database):
        died = asyncio.create_task(world.api.post("/api/v1/task", json=TASK, headers=key))
        await eventually(world, HELD, lambda rows: rows)
        (claim,) = select(world, "SELECT owner FROM idempotency_key")
        change(world, "UPDATE idempotency_key SET lease_until = created_at")
        async with replica(world) as other:
            again = asyncio.create_task(other.post("/api/v1/task", json=TASK, headers=key))
            await eventually(world, "SELECT owner FROM idempotency_key", lambda rows: rows[0] != claim)
            done, _ = await asyncio.wait({again}, timeout=0.1)
            assert not done
            change(world, "DELETE FROM held")
            answer = await again
    assert answer.status_code == 200
    (row,) = select(world, "SELECT uid FROM task")
    assert answer.json()["data"]["task_id"] == row["uid"]
    await died
    await world.ended(row["uid"])
    assert await creates_of(world) == 1


async def test_a_response_that_cannot_be_saved_is_not_delayed_by_the_lock_on_its_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_apart, "PATIENCE_SECONDS", 0.1)
    with held_commits(world.database, "idempotency_key", "NEW.status IS NOT NULL"):
        async with asyncio.timeout(10):
            answer = await world.api.post("/api/v1/task", json=TASK, headers={"idempotency-key": new_id()})
        assert answer.status_code == 504
