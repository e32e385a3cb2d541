"""Rate limits of API keys, and their headers in every response, in both dialects."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from receiver.api import webhooks
from receiver.domain.ids import new_id
from tests.fakes.inbound import notice, post
from tests.fakes.reader import reading
from tests.fakes.rows import change
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT, REMAINING, RESET = "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"
SLOW = 0.001
"""Requests per second: the bucket holds one, and no test waits for the next."""
DIALECTS = pytest.mark.parametrize("path", ["/api/v1/task/x", "/api/v1/tasks/x"], ids=["piapi", "native"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module: each test makes its own keys, each for nine requests."""
    async with in_process(tmp_path_factory.mktemp("world"), key_rate="9/h") as world:
        change(world, "UPDATE api_key SET rate_limit = 10000")
        yield world


async def key_of(world: World, **fields: Any) -> dict[str, str]:
    """Make a key; return the header that presents it."""
    answer = await world.api.post("/api/v1/keys", json={"name": "k", **fields})
    assert answer.status_code == 200, answer.text
    return {"x-api-key": answer.json()["data"]["key"]}


def limit_status(answer: httpx.Response) -> tuple[int, int]:
    """Return the limit and the remaining requests; check the other headers."""
    assert answer.headers["x-request-id"].startswith("req_pi_")
    for name in (LIMIT, REMAINING, RESET):
        assert answer.headers.get_list(name) == [answer.headers[name]]
    assert int(answer.headers[RESET]) >= int(time.time())
    return int(answer.headers[LIMIT]), int(answer.headers[REMAINING])


@DIALECTS
async def test_every_response_to_a_key_has_the_headers_of_its_limit(world: World, path: str) -> None:
    key = await key_of(world)
    answers = [await world.api.get(path, headers=key) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [404] * 9 + [429] * 2
    assert [limit_status(answer) for answer in answers] == [(9, left) for left in (8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0)]


@pytest.mark.parametrize(
    ("method", "path", "scope", "status"),
    [
        ("GET", "/api/v1/tasks", "read", 200),
        ("GET", "/account/active_tasks", "read", 200),
        ("POST", "/api/v1/runs", "write", 400),
        ("POST", "/api/v1/task", "write", 400),
        ("POST", "/api/v1/task", "read", 403),
        ("GET", "/api/v1/keys", "write", 403),
        ("GET", "/api/v1/webhooks/x", "read", 400),
        ("GET", "/api/v1/webhooks/018f0000-0000-7000-8000-000000000000", "read", 404),
    ],
)
async def test_errors_have_the_headers_too(world: World, method: str, path: str, scope: str, status: int) -> None:
    answer = await world.api.request(method, path, headers=await key_of(world, scope=scope))
    assert (answer.status_code, limit_status(answer)) == (status, (9, 8))


async def test_a_5xx_and_a_repeated_response_have_the_headers_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await key_of(world) | {"idempotency-key": new_id()}
    path = f"/api/v1/webhooks/{(await world.webhook())['id']}/test"
    with monkeypatch.context() as broken:
        broken.setattr(webhooks, "send_ping", None)
        failed = await world.api.post(path, headers=key)
    answers = [failed, await world.api.post(path, headers=key), await world.api.post(path, headers=key)]
    assert [answer.status_code for answer in answers] == [500, 200, 200]
    assert answers[2].headers["x-idempotency-replayed"] == "true"
    assert [limit_status(answer) for answer in answers] == [(9, 8), (9, 7), (9, 6)]


async def test_without_a_valid_key_there_are_no_headers(world: World) -> None:
    answer = await world.api.get("/api/v1/tasks", headers={"x-api-key": "no-key-of-ours"})
    assert answer.status_code == 401
    assert answer.headers["x-request-id"].startswith("req_pi_")
    assert not {LIMIT, REMAINING, RESET} & answer.headers.keys()


async def test_a_request_over_the_limit_is_refused_in_pi_s_form(world: World) -> None:
    key = await key_of(world, rate_limit=SLOW)
    assert (await world.api.get("/api/v1/tasks", headers=key)).status_code == 200
    refused = await world.api.get("/api/v1/tasks", headers=key)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert limit_status(refused) == (1, 0)
    assert 990 <= int(refused.headers["retry-after"]) == error["retry_after"] <= 1000
    assert abs(int(refused.headers[RESET]) - time.time() - error["retry_after"]) < 10
    assert error["request_id"] == refused.headers["x-request-id"]


async def test_a_request_over_the_limit_is_refused_in_piapi_s_form_on_its_paths(world: World) -> None:
    key = await key_of(world, rate_limit=SLOW)
    body = {"model": "flux", "task_type": "txt2img", "input": {}}
    before = await world.provider_stats()
    assert (await world.api.post("/api/v1/task", json=body, headers=key)).status_code == 200
    refused = await world.api.post("/api/v1/task", json=body, headers=key)
    assert (refused.status_code, refused.json()["code"], refused.json()["data"]) == (429, 429, None)
    assert int(refused.headers["retry-after"]) > 0
    assert limit_status(refused) == (1, 0)
    assert (await world.provider_stats())["created"] == before["created"] + 1


async def test_a_key_over_its_limit_does_not_affect_others(world: World) -> None:
    slow, other = await key_of(world, rate_limit=SLOW), await key_of(world, rate_limit=SLOW)
    statuses = [(await world.api.get("/api/v1/tasks", headers=key)).status_code for key in (slow, slow, other)]
    assert statuses == [200, 429, 200]
    assert (await world.api.get("/api/v1/tasks")).status_code == 200


async def test_a_request_that_the_scope_forbids_counts_too(world: World) -> None:
    key = await key_of(world, scope="read", rate_limit=SLOW)
    statuses = [(await world.api.get("/api/v1/keys", headers=key)).status_code for _ in range(2)]
    assert statuses == [403, 429]


async def test_a_stream_is_one_request_however_long_it_is_read(world: World) -> None:
    key = await key_of(world, scope="read")
    async with reading(world, key=key["x-api-key"]) as reader:
        await world.created()
        await reader.until(lambda seen: len(seen) >= 2)
        assert limit_status(reader.answer) == (9, 8)
        assert reader.answer.headers["content-type"].startswith("text/event-stream")
    assert limit_status(await world.api.get("/api/v1/tasks", headers=key)) == (9, 7)


async def test_a_key_s_own_limit_is_returned(world: World) -> None:
    made = await world.api.post("/api/v1/keys", json={"name": "mine", "rate_limit": 2.5})
    assert made.json()["data"]["rate_limit"] == 2.5
    plain = await world.api.post("/api/v1/keys", json={"name": "plain"})
    assert plain.json()["data"]["rate_limit"] is None
    listed = (await world.api.get("/api/v1/keys")).json()["data"]["data"]
    assert [(each["name"], each["rate_limit"]) for each in listed[:2]] == [("plain", None), ("mine", 2.5)]


@pytest.mark.parametrize("rate", [0, -1, 0.0001, 100_001, "5", True], ids=repr)
async def test_an_invalid_limit_is_refused(world: World, rate: Any) -> None:
    answer = await world.api.post("/api/v1/keys", json={"name": "k", "rate_limit": rate})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "rate_limit")


async def test_the_setting_is_for_keys_without_their_own_limit(world: World) -> None:
    for rate, limit in ((None, 9), (50, 50), (0.5, 1), (2.5, 3)):
        answer = await world.api.get("/api/v1/tasks", headers=await key_of(world, rate_limit=rate))
        assert limit_status(answer) == (limit, limit - 1)


async def test_inbound_webhooks_and_health_checks_are_never_limited(world: World) -> None:
    key = await key_of(world, rate_limit=SLOW)
    task_id = await world.created({"outcome": "never", "webhook": "lost"})
    body = notice((await world.task(task_id))["provider_task_id"], "processing")
    said = await asyncio.gather(*(post(world, task_id, json=body) for _ in range(20)))
    asked = [await world.api.get(path, headers=key) for path in ("/readyz", "/livez") * 5]
    for answer in (*said, *asked):
        assert answer.status_code == 200
        assert LIMIT not in answer.headers
    assert (await world.api.get("/api/v1/tasks", headers=key)).status_code == 200
