"""`Idempotency-Key`: which requests are the same, and which responses are saved (`receiver/api/CONTRACTS.md`)."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from receiver.api import webhooks
from receiver.domain.ids import new_id
from receiver.domain.keyring import KeyRing, hash_api_key
from receiver.serving.master_keys import master_keys
from tests.fakes.inbound import report
from tests.fakes.rows import change, refusing_writes, select
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

TASK = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat"}}
REPLAYED = "x-idempotency-replayed"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module: each test has its own idempotency keys."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        yield world


async def post(world: World, path: str, body: Any, key: str, **headers: str) -> httpx.Response:
    return await world.api.post(path, json=body, headers={"idempotency-key": key, **headers})


def hook(world: World, **fields: Any) -> dict[str, Any]:
    return {"endpoint_url": world.subscriber.url, "event_types": ["run.completed"], **fields}


def is_repeat_of(answer: httpx.Response, first: httpx.Response) -> bool:
    """Return whether it is the saved first response."""
    same = (answer.status_code, answer.content) == (first.status_code, first.content)
    assert answer.headers["content-type"] == first.headers["content-type"]
    assert answer.headers["x-request-id"] != first.headers["x-request-id"]
    assert REPLAYED not in first.headers
    return same and answer.headers.get(REPLAYED) == "true"


async def made(world: World, table: str) -> int:
    return int(select(world, f"SELECT count(*) AS count FROM {table}")[0]["count"])


async def test_a_repeat_gets_the_same_response_and_the_work_is_done_once_in_piapi_s_dialect(world: World) -> None:
    key, before = new_id(), await world.provider_stats()
    body = {**TASK, "input": {"sandbox": {"pending_seconds": 60.0}}}
    first = await post(world, "/api/v1/task", body, key)
    assert first.json()["data"]["status"] == "pending"
    task_id = first.json()["data"]["task_id"]
    await report(world, task_id, "completed", output={"image_url": "https://example.com/i.png"})
    assert (await world.task(task_id))["status"] == "completed"
    assert is_repeat_of(await post(world, "/api/v1/task", body, key), first)
    assert (await world.provider_stats())["created"] == before["created"] + 1


async def test_a_repeat_gets_the_same_response_and_the_work_is_done_once_in_pi_s_dialect(world: World) -> None:
    key, before = new_id(), await made(world, "subscription")
    first = await post(world, "/api/v1/webhooks", hook(world), key)
    assert first.json()["id"] == first.headers["x-request-id"]
    for _ in range(2):
        assert is_repeat_of(await post(world, "/api/v1/webhooks", hook(world), key), first)
    assert await made(world, "subscription") == before + 1


async def test_the_same_body_means_the_same_bytes(world: World) -> None:
    key = new_id()
    headers = {"idempotency-key": key}
    first = await world.api.post("/api/v1/task", content=b'{"model":"m","task_type":"t","input":{}}', headers=headers)
    assert first.status_code == 200
    spaced = await world.api.post("/api/v1/task", content=b'{"model": "m","task_type":"t","input":{}}', headers=headers)
    assert spaced.status_code == 409


async def test_another_body_is_refused_and_no_work_is_done(world: World) -> None:
    key, before = new_id(), await made(world, "subscription")
    first = await post(world, "/api/v1/webhooks", hook(world), key)
    refused = await post(world, "/api/v1/webhooks", hook(world, description="another"), key)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (409, "idempotency_key_mismatch")
    assert (error["type"], error["param"]) == ("invalid_request_error", "Idempotency-Key")
    assert error["request_id"] == refused.headers["x-request-id"]
    assert await made(world, "subscription") == before + 1
    assert is_repeat_of(await post(world, "/api/v1/webhooks", hook(world), key), first)


async def test_another_body_is_refused_in_piapi_s_form_on_its_paths(world: World) -> None:
    key = new_id()
    await post(world, "/api/v1/task", TASK, key)
    refused = await post(world, "/api/v1/task", {**TASK, "model": "another"}, key)
    assert (refused.status_code, refused.json()["code"], refused.json()["data"]) == (409, 409, None)
    assert "Idempotency-Key" in refused.json()["message"]


async def test_a_key_is_valid_for_one_endpoint_with_its_parameters(world: World) -> None:
    key = new_id()
    webhooks = [await world.webhook(event_types=["run.completed"]) for _ in range(2)]
    for each in webhooks:
        answer = await post(world, f"/api/v1/webhooks/{each['id']}/test", {}, key)
        assert REPLAYED not in answer.headers
        assert len(world.subscriber.of(each["id"])) == 1
    rotated = await post(world, f"/api/v1/webhooks/{webhooks[0]['id']}/rotate-secret", {}, key)
    assert (rotated.status_code, REPLAYED in rotated.headers) == (200, False)


async def test_a_key_is_valid_for_one_organization(world: World) -> None:
    name, secret, now = new_id(), f"rb_{new_id()}", "2026-01-01 00:00:00.000000"
    change(world, "INSERT INTO organization (uid, name, created_at) VALUES (?, ?, ?)", new_id(), name, now)
    (organization,) = select(world, "SELECT id FROM organization WHERE name = ?", name)
    change(
        world,
        "INSERT INTO api_key (uid, organization_id, name, scope, hash, hint, created_at) "
        "VALUES (?, ?, 'k', 'admin', ?, 'rb_', ?)",
        *(new_id(), organization["id"], hash_api_key(secret), now),
    )
    key = new_id()
    ours = await post(world, "/api/v1/webhooks", hook(world), key)
    theirs = await post(world, "/api/v1/webhooks", hook(world), key, **{"x-api-key": secret})
    assert (theirs.status_code, REPLAYED in theirs.headers) == (200, False)
    assert theirs.json()["data"]["id"] != ours.json()["data"]["id"]


async def test_another_api_key_of_the_organization_gets_the_same_response(world: World) -> None:
    other = (await world.api.post("/api/v1/keys", json={"name": "another"})).json()["data"]["key"]
    key = new_id()
    first = await post(world, "/api/v1/webhooks", hook(world), key)
    assert is_repeat_of(await post(world, "/api/v1/webhooks", hook(world), key, **{"x-api-key": other}), first)


@pytest.mark.parametrize("key", ["a", "x" * 255, '"~ !"'], ids=["one", "255", "marks"])
async def test_a_key_is_1_to_255_printable_characters(world: World, key: str) -> None:
    first = await post(world, "/api/v1/webhooks", hook(world), key)
    assert first.status_code == 200
    assert is_repeat_of(await post(world, "/api/v1/webhooks", hook(world), key), first)


@pytest.mark.parametrize(
    "keys",
    [[b""], [b"x" * 256], [b"\xc3\xa9"], [b"a\tb"], [b"a", b"b"]],
    ids=["empty", "256", "not ASCII", "a tab", "two"],
)
@pytest.mark.parametrize("path", ["/api/v1/task", "/api/v1/webhooks"])
async def test_any_other_key_is_refused(world: World, path: str, keys: list[bytes]) -> None:
    headers = [(b"idempotency-key", key) for key in keys]
    answer = await world.api.post(path, json=TASK, headers=headers)
    assert answer.status_code == 400
    if path == "/api/v1/task":
        assert answer.json()["message"].startswith("Idempotency-Key: must be")
    else:
        assert answer.json()["error"]["code"] == "invalid_idempotency_key"
        assert answer.json()["error"]["param"] == "Idempotency-Key"


async def refusals(world: World) -> Mapping[str, tuple[str, Any, int]]:
    """Return requests that are refused for their content."""
    webhook = await world.webhook()
    return {
        "a wrong field": ("/api/v1/webhooks", {"endpoint_url": 5}, 400),
        "no such thing": (f"/api/v1/deliveries/{new_id()}/retry", {}, 404),
        "a wrong moment": (f"/api/v1/webhooks/{webhook['id']}/recover", {"since": "2999-01-01"}, 400),
        "the provider": ("/api/v1/task", {**TASK, "input": {"sandbox": {"submit": "refuse", "key": new_id()}}}, 400),
    }


@pytest.mark.parametrize("kind", ["a wrong field", "no such thing", "a wrong moment", "the provider"])
async def test_a_4xx_of_the_work_is_saved(world: World, kind: str) -> None:
    path, body, status = (await refusals(world))[kind]
    key, before = new_id(), await world.provider_stats()
    first = await post(world, path, body, key)
    assert first.status_code == status
    assert is_repeat_of(await post(world, path, body, key), first)
    asked = [stats["requests"].get("POST /api/v1/task", 0) for stats in (before, await world.provider_stats())]
    assert asked[1] - asked[0] == (kind == "the provider")


async def test_the_refusal_of_a_body_that_is_not_json_is_saved_too(world: World) -> None:
    headers = {"idempotency-key": new_id()}
    first = await world.api.post("/api/v1/webhooks", content=b"{", headers=headers)
    assert first.json()["error"]["code"] == "invalid_json_body"
    assert is_repeat_of(await world.api.post("/api/v1/webhooks", content=b"{", headers=headers), first)


async def test_after_a_403_the_same_key_can_be_used_again(world: World) -> None:
    made = [{"name": "k", "scope": "read"}, {"name": "k", "rate_limit": 0.001}]
    reader, slow = [(await world.api.post("/api/v1/keys", json=each)).json()["data"]["key"] for each in made]
    assert (await world.api.get("/api/v1/tasks", headers={"x-api-key": slow})).status_code == 200
    key = new_id()
    for api_key, status in (("no-key-of-ours", 401), (reader, 403), (slow, 429)):
        refused = await post(world, "/api/v1/webhooks", hook(world), key, **{"x-api-key": api_key})
        assert (refused.status_code, REPLAYED in refused.headers) == (status, False)
    first = await post(world, "/api/v1/webhooks", hook(world), key)
    assert (first.status_code, REPLAYED in first.headers) == (200, False)


async def test_after_a_5xx_the_work_is_done_with_the_same_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path, key = f"/api/v1/webhooks/{(await world.webhook())['id']}/test", new_id()
    with monkeypatch.context() as broken:
        broken.setattr(webhooks, "send_ping", None)
        assert (await post(world, path, {}, key)).status_code == 500
    other = await post(world, path, {"another": "body"}, key)
    assert other.status_code == 409
    first = await post(world, path, {}, key)
    assert (first.status_code, REPLAYED in first.headers) == (200, False)
    assert is_repeat_of(await post(world, path, {}, key), first)


async def test_no_work_is_done_if_the_key_cannot_be_claimed(world: World) -> None:
    key, before = new_id(), await made(world, "subscription")
    with refusing_writes(world):
        refused = await post(world, "/api/v1/webhooks", hook(world), key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
    assert await made(world, "subscription") == before
    assert (await post(world, "/api/v1/webhooks", hook(world), key)).status_code == 200


async def test_only_posts_have_keys(world: World) -> None:
    webhook, key = await world.webhook(), {"idempotency-key": new_id()}
    path, before = f"/api/v1/webhooks/{webhook['id']}", await made(world, "idempotency_key")
    for text in ("one", "two"):
        changed = await world.api.patch(path, json={"description": text}, headers=key)
        assert changed.json()["data"]["description"] == text
        assert (await world.api.get(path, headers=key)).json()["data"]["description"] == text
    assert [(await world.api.delete(path, headers=key)).status_code for _ in range(2)] == [200, 404]
    assert await made(world, "idempotency_key") == before


async def test_without_a_key_nothing_is_saved(world: World) -> None:
    before = await made(world, "idempotency_key")
    ids = {(await world.webhook())["id"] for _ in range(2)}
    assert len(ids) == 2
    assert await made(world, "idempotency_key") == before


async def test_a_body_that_is_too_large_is_refused_before_its_key_is_claimed(world: World) -> None:
    before = await made(world, "idempotency_key")
    answer = await post(world, "/api/v1/task", {**TASK, "input": {"prompt": "x" * 16 * 1024 * 1024}}, new_id())
    assert (answer.status_code, answer.json()["code"]) == (413, 413)
    assert await made(world, "idempotency_key") == before


async def test_after_24_hours_a_key_is_new(world: World) -> None:
    key = new_id()
    first = await post(world, "/api/v1/webhooks", hook(world), key)
    for hours, is_kept in ((23.9, True), (24.1, False)):
        moment = (datetime.now(UTC) - timedelta(hours=hours)).replace(tzinfo=None)
        newest = "(SELECT max(id) FROM idempotency_key)"
        change(world, f"UPDATE idempotency_key SET created_at = ? WHERE id = {newest}", moment.isoformat(" "))
        answer = await post(world, "/api/v1/webhooks", hook(world), key)
        assert (answer.headers.get(REPLAYED) == "true") == is_kept
    assert answer.json()["data"]["id"] != first.json()["data"]["id"]


async def test_no_secret_of_a_saved_response_is_on_disk_in_clear(world: World) -> None:
    webhook = await post(world, "/api/v1/webhooks", hook(world), new_id())
    rotated = await post(world, f"/api/v1/webhooks/{webhook.json()['data']['id']}/rotate-secret", {}, new_id())
    api_key = await post(world, "/api/v1/keys", {"name": "k"}, new_id())
    task = await post(world, "/api/v1/task", TASK, new_id())
    secrets = [answer.json()["data"]["secret"] for answer in (webhook, rotated)] + [api_key.json()["data"]["key"]]
    rows = select(world, "SELECT * FROM idempotency_key ORDER BY id DESC LIMIT 4")
    clear = [*secrets, *(secret.removeprefix("whsec_") for secret in secrets), "a cat", '"data"']
    assert not [text for text in clear for row in rows for value in row.values() if text in str(value)]
    keyring = KeyRing(master_keys(world.settings))
    kept = [keyring.decrypt(row["answer"]).encode() for row in reversed(rows)]
    assert kept == [answer.content for answer in (webhook, rotated, api_key, task)]
