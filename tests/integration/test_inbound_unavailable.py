"""A 200 means that the write is on disk. Where that is not possible, the response is 503 with `Retry-After`."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from receiver.storage import database
from receiver.storage.sqlite import SQLiteConnection, connection
from receiver.tracking import submit
from tests.fakes.inbound import notice, post
from tests.fakes.rows import refusing_writes, select
from tests.fakes.world import World, in_process

BY_HAND = {"outcome": "never", "webhook": "lost"}
BUSY_SECONDS = 0.5
PICTURE = {"image_url": "https://example.com/i.png"}


@pytest.fixture
def short_lock_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the writer wait only shortly for another process's lock."""
    monkeypatch.setattr(database, "SQLiteConnection", partial(SQLiteConnection, busy_seconds=BUSY_SECONDS))


@pytest.fixture
async def world(short_lock_wait: None, tmp_path: Path) -> AsyncIterator[World]:
    """A world whose writer waits only shortly for a lock."""
    async with in_process(tmp_path) as world:
        yield world


def may_retry(answer: httpx.Response) -> bool:
    """Return whether the response is a 503 with `Retry-After`."""
    return answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1


async def test_with_the_database_locked_nothing_is_acknowledged_and_every_client_may_retry(world: World) -> None:
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
    assert all(may_retry(answer) for answer in answers), [answer.text for answer in answers]
    assert answers[2].json()["code"] == 503
    assert answers[3].json()["error"]["code"] == "storage_unavailable"
    assert (await world.provider_stats())["requests"]["POST /api/v1/task"] == calls
    assert (await post(world, task_id, json=body)).status_code == 200
    assert (await world.task(task_id))["status"] == "completed"
    assert len(select(world, "SELECT uid FROM task")) == 1
    assert select(world, "SELECT uid FROM receipt") == []


async def test_after_the_lock_is_released_the_loops_continue(world: World) -> None:
    await world.webhook()
    with refusing_writes(world):
        assert may_retry(await world.api.get("/readyz"))
    task_id = await world.created()
    assert (await world.ended(task_id))["status"] == "completed"
    await world.subscriber.until(lambda received: received)


async def test_the_outcome_of_a_create_call_is_written_although_the_database_was_locked(world: World) -> None:
    creating = asyncio.create_task(world.create({"submit": "hang", "hang_seconds": 0.3, **BY_HAND}))
    async with asyncio.timeout(5):
        while not (await world.provider_stats())["created"]:
            pass
    with refusing_writes(world):
        assert may_retry(await world.api.get("/readyz"))
        assert may_retry(await world.api.get("/readyz"))
    answer = await creating
    assert answer.status_code == 200
    task = await world.task(answer.json()["data"]["task_id"])
    assert (task["submission"], task["status"]) == ("accepted", "pending")
    assert (await world.provider_stats())["created"] == 1


@pytest.mark.sqlite_only("a lock keeps the writer waiting; PostgreSQL refuses at once")
async def test_with_the_writers_queue_full_the_response_comes_at_once(short_lock_wait: None, tmp_path: Path) -> None:
    async with in_process(tmp_path, writer_queue="1") as world:
        # The only place may be taken for a moment by a write of the service's own.
        created = await when_there_is_room(lambda: world.create(BY_HAND))
        task_id = created.json()["data"]["task_id"]
        body = notice((await world.task(task_id))["provider_task_id"], "completed", output=PICTURE)
        with refusing_writes(world):
            answers = await asyncio.gather(*(post(world, task_id, json=body) for _ in range(20)), world.create())
        assert all(may_retry(answer) for answer in answers)
        assert sum("queue" in answer.text for answer in answers) >= 15
        assert (await world.task(task_id))["status"] != "completed"
        assert len(select(world, "SELECT uid FROM task")) == 1
        assert (await when_there_is_room(lambda: post(world, task_id, json=body))).status_code == 200


async def when_there_is_room(ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """Ask, and ask again as long as the queue of writes is full; return the answer."""
    async with asyncio.timeout(10):
        while "queue of writes is full" in (answer := await ask()).text:
            pass
    return answer


@pytest.mark.sqlite_only("a file that may not grow")
async def test_with_the_disk_full_every_acknowledged_write_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = connection._open

    def open_small_disk(path: Path) -> sqlite3.Connection:
        opened = open_file(path)
        pages = opened.execute("PRAGMA page_count").fetchone()[0]
        opened.execute(f"PRAGMA max_page_count={pages + 40}")
        return opened

    monkeypatch.setattr(connection, "_open", open_small_disk)
    # The outcome of a create call that finds no room is written again after each of these, also while the world ends.
    monkeypatch.setattr(submit, "_WRITE_RETRY_SECONDS", (0.1,) * 6)
    async with in_process(tmp_path, submit_wait_seconds="0.2") as world:
        taken = []
        while (answer := await world.create(BY_HAND, input={"prompt": "x" * 20_000})).status_code == 200:
            taken.append(answer.json()["data"]["task_id"])
        assert may_retry(answer), answer.text
        assert 2 < len(taken) < 40
        for task_id in taken:
            assert (await world.task(task_id))["task_id"] == task_id
        answer = await post(world, taken[0], json=notice("p", "completed", output={"image_url": "x" * 100_000}))
        assert answer.status_code in (200, 503)
