"""Work that was done without a saved response: the next request with the key finds it, and does not repeat it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
import pytest_asyncio

from receiver.domain.ids import new_id
from receiver.errors import StorageUnavailable
from receiver.storage import idempotency as storage
from receiver.storage.transaction import Transaction
from tests.fakes.past_events import add_events, hours_ago
from tests.fakes.rows import eventually, select
from tests.fakes.verifiers import verify_standard
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

TASK = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat"}}
REPLAYED = "x-idempotency-replayed"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module: each test has its own idempotency keys."""
    async with in_process(tmp_path_factory.mktemp("world"), retry_schedule="0") as world:
        yield world


class Client:
    """A client whose first request does its work and gets no response, and that repeats it with the same key."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._world = world
        self._monkeypatch = monkeypatch
        self._headers = {"idempotency-key": new_id()}

    async def gets_no_response(self, path: str, **body: Any) -> None:
        with self._monkeypatch.context() as broken:
            broken.setattr(storage, "keep", _fails)
            refused = await self.asks(path, **body)
        assert (refused.status_code, refused.headers["retry-after"]) == (504, "1")

    async def asks(self, path: str, **body: Any) -> httpx.Response:
        return await self._world.api.post(path, json=body, headers=self._headers)

    async def gets_response(self, path: str, **body: Any) -> httpx.Response:
        """Repeat the request; return the response, which is saved now."""
        answer = await self.asks(path, **body)
        assert REPLAYED not in answer.headers
        again = await self.asks(path, **body)
        assert (again.headers[REPLAYED], again.content) == ("true", answer.content)
        return answer


async def _fails(_tx: Transaction, answers: Sequence[Any]) -> list[Exception]:
    return [StorageUnavailable("the disk is full just now") for _ in answers]


@pytest.fixture
def client(world: World, monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(world, monkeypatch)


def newest(world: World, table: str, number: int = 1) -> list[dict[str, Any]]:
    return select(world, f"SELECT * FROM {table} ORDER BY id DESC LIMIT {number}")


def resource_id(world: World) -> str:
    """Return the `resource_id` of the newest key."""
    return str(newest(world, "idempotency_key")[0]["resource_id"])


async def test_a_task_is_not_made_twice(world: World, client: Client) -> None:
    before = await world.provider_stats()
    await client.gets_no_response("/api/v1/task", **TASK)
    (row,) = newest(world, "task")
    assert row["uid"] == resource_id(world)
    await world.ended(row["uid"])
    answer = await client.gets_response("/api/v1/task", **TASK)
    task = answer.json()["data"]
    assert (answer.status_code, task["task_id"], task["status"]) == (200, row["uid"], "completed")
    assert (await world.provider_stats())["created"] == before["created"] + 1


@pytest.mark.parametrize(("conduct", "status"), [("refuse", 400), ("unauthorized", 502)])
async def test_a_task_that_the_provider_refused_is_refused_again_and_not_sent_again(
    world: World, client: Client, conduct: str, status: int
) -> None:
    before = (await world.provider_stats())["requests"].get("POST /api/v1/task", 0)
    body = {**TASK, "input": {"sandbox": {"submit": conduct, "key": new_id()}}}
    if status == 400:
        await client.gets_no_response("/api/v1/task", **body)
    else:  # which is never saved
        assert (await client.asks("/api/v1/task", **body)).status_code == status
    answer = await client.asks("/api/v1/task", **body)
    assert (answer.status_code, answer.json()["code"], REPLAYED in answer.headers) == (status, status, False)
    assert answer.json()["message"] == newest_error(world)
    assert (await world.provider_stats())["requests"]["POST /api/v1/task"] == before + 1


def newest_error(world: World) -> str:
    error = newest(world, "task")[0]["error"]
    return str(httpx.Response(200, content=error).json()["message"])


async def test_a_webhook_is_not_made_twice_and_its_secret_is_returned(world: World, client: Client) -> None:
    body = {"endpoint_url": world.subscriber.url, "event_types": ["run.completed"]}
    await client.gets_no_response("/api/v1/webhooks", **body)
    (row,) = newest(world, "subscription")
    webhook = (await client.gets_response("/api/v1/webhooks", **body)).json()["data"]
    assert webhook["id"] == row["uid"] == resource_id(world) == newest(world, "subscription")[0]["uid"]
    await world.api.post(f"/api/v1/webhooks/{webhook['id']}/test")
    verify_standard(webhook["secret"], world.subscriber.of(webhook["id"])[-1])


async def test_a_secret_that_the_client_chose_is_not_returned(world: World, client: Client) -> None:
    body = {"endpoint_url": world.subscriber.url, "secret": "a-secret-of-the-clients-own"}
    await client.gets_no_response("/api/v1/webhooks", **body)
    webhook = (await client.gets_response("/api/v1/webhooks", **body)).json()["data"]
    assert "secret" not in webhook
    assert webhook["format"] == "pi"


async def test_a_webhook_that_was_removed_since_is_not_made_again(world: World, client: Client) -> None:
    body = {"endpoint_url": world.subscriber.url, "event_types": ["run.failed"]}
    await client.gets_no_response("/api/v1/webhooks", **body)
    (row,) = newest(world, "subscription")
    await world.api.delete(f"/api/v1/webhooks/{row['uid']}")
    answer = await client.gets_response("/api/v1/webhooks", **body)
    assert (answer.status_code, newest(world, "subscription")[0]["uid"]) == (404, row["uid"])


async def test_an_api_key_is_not_made_twice_and_the_returned_one_works(world: World, client: Client) -> None:
    body = {"name": "k", "scope": "read", "rate_limit": 7}
    await client.gets_no_response("/api/v1/keys", **body)
    (untold,) = newest(world, "api_key")
    key = (await client.gets_response("/api/v1/keys", **body)).json()["data"]
    (row,) = newest(world, "api_key")
    assert key["id"] == row["uid"] == untold["uid"] == resource_id(world)
    assert row["hash"] != untold["hash"]
    assert key["key"].startswith(key["hint"])
    assert key["hint"] == row["hint"]
    answer = await world.api.get("/api/v1/tasks", headers={"x-api-key": key["key"]})
    assert (answer.status_code, answer.headers["x-ratelimit-limit"]) == (200, "7")


async def test_an_api_key_that_was_revoked_since_is_not_made_again(world: World, client: Client) -> None:
    await client.gets_no_response("/api/v1/keys", name="k")
    (row,) = newest(world, "api_key")
    await world.api.delete(f"/api/v1/keys/{row['uid']}")
    answer = await client.gets_response("/api/v1/keys", name="k")
    assert (answer.status_code, newest(world, "api_key")[0]["uid"]) == (409, row["uid"])


@pytest.mark.parametrize("kind", ["replay", "recover"])
async def test_a_replay_is_not_started_twice(world: World, client: Client, kind: str) -> None:
    webhook = await world.webhook(event_types=["task.cancelled"])
    told = add_events(world, 3, type="task.cancelled")
    path, body = f"/api/v1/webhooks/{webhook['id']}/{kind}", {"since": hours_ago(2)}
    await client.gets_no_response(path, **body)
    (row,) = newest(world, "replay")
    sent = len(told) if kind == "replay" else 0
    await eventually(
        world, f"SELECT * FROM replay WHERE uid = '{row['uid']}'", lambda rows: rows[0]["status"] == "done"
    )
    answer = await client.gets_response(path, **body)
    replay = answer.json()["data"]
    assert (answer.status_code, replay["id"], replay["sent"]) == (202, resource_id(world), sent)
    assert newest(world, "replay")[0]["uid"] == row["uid"]


async def test_a_delivery_that_is_pending_again_is_not_retried_twice(world: World, client: Client) -> None:
    let_go = asyncio.Event()

    async def wait(_number: int) -> int:
        await let_go.wait()
        return 200

    world.subscriber.answer = lambda _number, _request: 500
    webhook = await world.webhook(event_types=["task.failed"])
    mine = f"subscription_id = (SELECT id FROM subscription WHERE uid = '{webhook['id']}')"
    await world.created({"outcome": "failed"})
    (row,) = await eventually(world, f"SELECT uid FROM delivery WHERE status = 'dead' AND {mine}", lambda rows: rows)
    world.subscriber.answer = lambda number, _request: wait(number)
    path = f"/api/v1/deliveries/{row['uid']}/retry"
    await client.gets_no_response(path)
    answer = await client.gets_response(path)
    assert (answer.status_code, answer.json()["data"]["status"]) == (202, "pending")
    let_go.set()
    (row,) = await eventually(world, f"SELECT * FROM delivery WHERE status = 'delivered' AND {mine}", lambda rows: rows)
    assert row["attempt"] == 2


async def test_after_a_rotation_that_got_no_response_the_next_secret_is_returned(world: World, client: Client) -> None:
    world.subscriber.answer = lambda _number, _request: 200
    webhook = await world.webhook(event_types=["run.completed"])
    path = f"/api/v1/webhooks/{webhook['id']}"
    await client.gets_no_response(f"{path}/rotate-secret")
    rotated = (await client.gets_response(f"{path}/rotate-secret")).json()["data"]
    await world.api.post(f"{path}/test")
    for secret in (webhook["secret"], rotated["secret"]):
        verify_standard(secret, world.subscriber.of(webhook["id"])[-1])
