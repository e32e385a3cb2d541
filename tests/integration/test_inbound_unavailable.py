"""A 200 means: on disk. Where that is not to be had, the answer is 503 with `Retry-After`."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from receiver.storage import database
from receiver.storage.sqlite import SQLiteConnection, connection
from tests.fakes.inbound import notice, post
from tests.fakes.rows import refusing_writes, select
from tests.fakes.world import World, in_process

BY_HAND = {"outcome": "never", "webhook": "lost"}
BUSY_SECONDS = 0.5
PICTURE = {"image_url": "https://example.com/i.png"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the writer wait less for another process's lock than it does in earnest."""
    monkeypatch.setattr(database, "SQLiteConnection", partial(SQLiteConnection, busy_seconds=BUSY_SECONDS))


@pytest.fixture
async def world(impatient: None, tmp_path: Path) -> AsyncIterator[World]:
    """A world with an impatient writer."""
    async with in_process(tmp_path) as world:
        yield world


def come_again(answer: httpx.Response) -> bool:
    """Say whether it is a 503 that tells when to come again."""
    return answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1


async def test_with_the_database_locked_nothing_is_acknowledged_and_everybody_may_come_again(world: World) -> None:
    task_id = await world.created(BY_HAND)
    provider_id = (await world.task(task_id))["provider_task_id"]
    body = notice(provider_id, "completed", output=PICTURE)
    calls = (await world.provider_stats())["requests"]["POST /api/v1/task"]
    with refusing_writes(world):
        answers = await asyncio.gather(
            post(world, task_id, json=body),
            post(world, task_id, content=b"<html>"),
            world.create(),
            world.api.post("/api/v1/webhooks", json={"endpoint_url": world.subscriber.url}),
            world.api.post("/api/v1/keys", json={"name": "k"}),
            world.api.get("/readyz"),
        )
        assert (await world.task(task_id))["status"] != "completed"
        assert (await world.api.get("/livez")).status_code == 200
    assert all(come_again(answer) for answer in answers), [answer.text for answer in answers]
    assert answers[2].json()["code"] == 503
    assert answers[3].json()["error"]["code"] == "storage_unavailable"
    assert (await world.provider_stats())["requests"]["POST /api/v1/task"] == calls
    assert (await post(world, task_id, json=body)).status_code == 200
    assert (await world.task(task_id))["status"] == "completed"
    assert len(select(world, "SELECT uid FROM task")) == 1
    assert select(world, "SELECT uid FROM receipt") == []


async def test_after_the_lock_is_gone_the_loops_go_on(world: World) -> None:
    await world.webhook()
    with refusing_writes(world):
        assert come_again(await world.api.get("/readyz"))
    task_id = await world.created()
    assert (await world.ended(task_id))["status"] == "completed"
    await world.subscriber.until(lambda heard: heard)


async def test_what_the_provider_answered_is_written_though_the_database_was_locked_meanwhile(world: World) -> None:
    creating = asyncio.create_task(world.create({"submit": "hang", "hang_seconds": 0.3, **BY_HAND}))
    async with asyncio.timeout(5):
        while not (await world.provider_stats())["created"]:
            pass
    with refusing_writes(world):
        assert come_again(await world.api.get("/readyz"))
        assert come_again(await world.api.get("/readyz"))
    answer = await creating
    assert answer.status_code == 200
    task = await world.task(answer.json()["data"]["task_id"])
    assert (task["submission"], task["status"]) == ("accepted", "pending")
    assert (await world.provider_stats())["created"] == 1


@pytest.mark.sqlite_only("a lock keeps the writer waiting; PostgreSQL refuses at once")
async def test_with_the_writer_s_queue_full_there_is_an_answer_at_once(impatient: None, tmp_path: Path) -> None:
    async with in_process(tmp_path, writer_queue="1") as world:
        task_id = await world.created(BY_HAND)
        body = notice((await world.task(task_id))["provider_task_id"], "completed", output=PICTURE)
        with refusing_writes(world):
            answers = await asyncio.gather(*(post(world, task_id, json=body) for _ in range(20)), world.create())
        assert all(come_again(answer) for answer in answers)
        assert sum("queue" in answer.text for answer in answers) >= 15
        assert (await world.task(task_id))["status"] != "completed"
        assert len(select(world, "SELECT uid FROM task")) == 1
        assert (await post(world, task_id, json=body)).status_code == 200


@pytest.mark.sqlite_only("a file that may not grow")
async def test_with_the_disk_full_whatever_was_acknowledged_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = connection._open

    def open_small_disk(path: Path) -> sqlite3.Connection:
        opened = open_file(path)
        pages = opened.execute("PRAGMA page_count").fetchone()[0]
        opened.execute(f"PRAGMA max_page_count={pages + 40}")
        return opened

    monkeypatch.setattr(connection, "_open", open_small_disk)
    async with in_process(tmp_path) as world:
        taken = []
        while (answer := await world.create(BY_HAND, input={"prompt": "x" * 20_000})).status_code == 200:
            taken.append(answer.json()["data"]["task_id"])
        assert come_again(answer), answer.text
        assert 2 < len(taken) < 40
        for task_id in taken:
            assert (await world.task(task_id))["task_id"] == task_id
        answer = await post(world, taken[0], json=notice("p", "completed", output={"image_url": "x" * 100_000}))
        assert answer.status_code in (200, 503)
