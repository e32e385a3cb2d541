"""Wrong keys and webhook secrets from one address: the wrong ones are slowed or counted, and the right ones work."""

from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

import httpx
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from tests.fakes.inbound import SILENT, notice, post
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRONG = "a-key-that-was-given-to-no-one"


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module, with the default of 20 wrong keys a minute."""
    async with in_process(tmp_path_factory.mktemp("world"), wrong_key_rate="20/m") as world:
        yield world


async def tried(world: World, key: str = WRONG, path: str = "/api/v1/tasks") -> httpx.Response:
    return await world.api.get(path, headers={"x-api-key": key})


async def slow(world: World) -> list[httpx.Response]:
    """Send wrong keys until five of them got 429, so that the address stays slowed; return the answers."""
    answers: list[httpx.Response] = []
    while sum(answer.status_code == 429 for answer in answers) < 5:
        answers.append(await tried(world, f"{WRONG}-{len(answers)}"))
    return answers


async def count(world: World, name: str) -> float:
    lines = (await world.api.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def test_further_wrong_keys_get_429_and_right_ones_work_from_the_same_address(
    world: World, logged: list[MutableMapping[str, Any]]
) -> None:
    before = await count(world, "ringback_wrong_keys_total")
    answers = await slow(world)
    assert [answer.status_code for answer in answers[:20]] == [401] * 20
    wait, error = int(answers[-1].headers["retry-after"]), answers[-1].json()["error"]
    assert (error["code"], error["retry_after"]) == ("rate_limit_exceeded", wait)
    assert 0 < wait <= 60
    assert await count(world, "ringback_wrong_keys_total") == before + len(answers)
    assert [line["address"] for line in logged if line["event"] == "wrong API keys slowed"] == ["127.0.0.1"]
    assert WRONG not in repr(logged)
    assert (await world.api.get("/api/v1/tasks")).status_code == 200
    made = (await world.api.post("/api/v1/keys", json={"name": "k"})).json()["data"]
    assert (await tried(world, made["key"])).status_code == 200


async def test_piapi_s_paths_have_the_answer_in_piapi_s_form(world: World) -> None:
    await slow(world)
    answer = await tried(world, path="/api/v1/task/x")
    assert (answer.status_code, answer.json()["code"], answer.json()["data"]) == (429, 429, None)
    assert int(answer.headers["retry-after"]) > 0


async def test_a_request_without_a_key_is_counted_and_not_slowed(world: World) -> None:
    await slow(world)
    before = await count(world, 'ringback_wrong_keys_total{reason="missing"}')
    async with httpx.AsyncClient(base_url=world.base) as anonymous:
        assert {(await anonymous.get("/api/v1/tasks")).status_code for _ in range(30)} == {401}
    assert await count(world, 'ringback_wrong_keys_total{reason="missing"}') == before + 30


async def test_a_revoked_key_is_a_wrong_one(world: World) -> None:
    made = (await world.api.post("/api/v1/keys", json={"name": "k"})).json()["data"]
    await slow(world)
    assert (await tried(world, made["key"])).status_code == 200
    await world.api.delete(f"/api/v1/keys/{made['id']}")
    assert (await tried(world, made["key"])).status_code == 429


async def test_wrong_webhook_secrets_are_logged_once_a_minute_and_slow_no_provider(
    world: World, logged: list[MutableMapping[str, Any]]
) -> None:
    task_id = await world.created(SILENT)
    body = notice((await world.task(task_id))["provider_task_id"], "processing")
    forged = [await post(world, task_id, secret=f"{WRONG}-{number}", json=body) for number in range(40)]
    assert {answer.status_code for answer in forged} == {401}
    assert (await post(world, task_id, json=body)).status_code == 200
    (line,) = (line for line in logged if line["event"] == "inbound webhooks refused")
    assert (line["address"], line["provider"], line["wrong_secrets"]) == ("127.0.0.1", "piapi", 1)
    assert WRONG not in repr(logged)
