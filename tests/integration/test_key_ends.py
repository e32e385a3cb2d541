"""What a key is used for ends with it: streams, long polls and answers that are passed on."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from receiver.api import keys_in_use
from receiver.clock import utc_now
from receiver.events.after_commit import Waiting
from tests.fakes.reader import reading
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

BY_HAND = {"outcome": "never", "webhook": "lost"}
WAIT = {"wait_for_completion": "true", "timeout_seconds": "30"}
SECONDS = 10.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module: each test makes its own keys."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        yield world


async def made(world: World, **fields: Any) -> dict[str, Any]:
    answer = await world.api.post("/api/v1/keys", json={"name": "client", "scope": "write", **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def waiting_poll(world: World, key: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> "asyncio.Task[Any]":
    """Begin a long poll with a key; return when the service waits in it."""
    waits, watch = asyncio.Event(), Waiting.watch

    def note(self: Waiting, uid: str) -> Any:
        waits.set()
        return watch(self, uid)

    monkeypatch.setattr(Waiting, "watch", note)
    task_id = await world.created(BY_HAND)
    request = world.api.get(f"/api/v1/tasks/{task_id}", params=WAIT, headers={"x-api-key": key["key"]})
    polling = asyncio.create_task(request)
    await waits.wait()
    return polling


async def test_a_revoked_keys_stream_and_long_poll_end_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await made(world)
    async with reading(world, key=key["key"]) as stream, reading(world) as other:
        polling = await waiting_poll(world, key, monkeypatch)
        monkeypatch.setattr(keys_in_use, "CHECK_SECONDS", 3600.0)  # so that the revocation itself must end them
        assert (await world.api.delete(f"/api/v1/keys/{key['id']}")).status_code == 200
        async with asyncio.timeout(SECONDS):
            answer = await polling
            await stream.end()
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert "revoked" in stream.comments[-1]
        task_id = await world.created(BY_HAND)
        await other.until(lambda seen: any(each.task_id == task_id for each in seen))


async def test_a_key_that_expires_ends_what_it_holds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    expires_at = utc_now() + timedelta(seconds=2.5)
    key = await made(world, expires_at=expires_at.isoformat())
    async with reading(world, key=key["key"]) as stream:
        polling = await waiting_poll(world, key, monkeypatch)
        async with asyncio.timeout(SECONDS):
            answer = await polling
            await stream.end()
    assert answer.status_code == 401
    assert utc_now() >= expires_at
    refused = await world.api.get("/api/v1/tasks", headers={"x-api-key": key["key"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "key_expired")
    listed = (await world.api.get("/api/v1/keys")).json()["data"]["data"]
    assert key["expires_at"] in [each["expires_at"] for each in listed if each["id"] == key["id"]]


async def test_a_request_that_changes_something_is_finished(world: World) -> None:
    key = await made(world, scope="admin")
    headers = {"x-api-key": key["key"]}
    answer = await world.api.delete(f"/api/v1/keys/{key['id']}", headers=headers)
    assert answer.status_code == 200
    assert (await world.api.get("/api/v1/keys", headers=headers)).status_code == 401


async def test_a_key_shows_when_it_was_last_used(world: World) -> None:
    key = await made(world)
    path = f"/api/v1/keys/{key['id']}"
    assert (await world.api.get(path)).json()["data"]["last_used_at"] is None
    before = utc_now() - timedelta(seconds=1)
    await world.api.get("/api/v1/tasks", headers={"x-api-key": key["key"]})
    async with asyncio.timeout(SECONDS):
        while (found := (await world.api.get(path)).json()["data"])["last_used_at"] is None:
            await world.api.get("/readyz")
    assert found["last_used_at"] >= before.isoformat()
    assert found == {
        **{name: value for name, value in key.items() if name != "key"},
        **{"last_used_at": found["last_used_at"]},
    }


async def test_a_time_that_is_past_is_no_expiry(world: World) -> None:
    answer = await world.api.post("/api/v1/keys", json={"name": "late", "expires_at": "2020-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "expires_at")


async def test_a_revoked_key_has_no_page_of_its_own(world: World) -> None:
    key = await made(world)
    path = f"/api/v1/keys/{key['id']}"
    found: httpx.Response = await world.api.get(path)
    assert found.json()["data"]["name"] == "client"
    await world.api.delete(path)
    assert (await world.api.get(path)).status_code == 404
