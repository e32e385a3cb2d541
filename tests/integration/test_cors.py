"""CORS: which web pages may call the API from a browser, and what they may send and read."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from receiver.domain.ids import new_id
from tests.fakes.inbound import SILENT, hook_secret, notice
from tests.fakes.world import World, in_process

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.sqlite_only("the headers of a response do not depend on the database"),
]

PAGE, OTHER = "https://app.example.com", "https://other.example.com"
SENT = "X-API-Key, Authorization, Idempotency-Key, Last-Event-ID, Content-Type, x-stainless-lang"
READ = {
    "x-request-id",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "retry-after",
    "x-idempotency-replayed",
}
CORS = "access-control-"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module, which lets two origins in."""
    origins = f" {PAGE}/, http://localhost:5173"
    async with in_process(tmp_path_factory.mktemp("world"), cors_origins=origins) as world:
        yield world


async def preflight(world: World, path: str, origin: str, method: str = "POST", sent: str = SENT) -> httpx.Response:
    """Send what a browser sends before a request of a page: without a key."""
    headers = {"origin": origin, "access-control-request-method": method, "access-control-request-headers": sent}
    return await world.provider.options(f"{world.base}{path}", headers=headers)


def cors_headers(answer: httpx.Response) -> set[str]:
    return {name for name in answer.headers if name.startswith(CORS)}


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:5173"])
@pytest.mark.parametrize("path", ["/api/v1/task", "/api/v1/tasks/", "/account/info", "/api/v1/nothing"])
async def test_a_page_s_preflight_is_answered_without_a_key(world: World, path: str, origin: str) -> None:
    answer = await preflight(world, path, origin)
    assert answer.status_code == 200
    assert answer.headers[f"{CORS}allow-origin"] == origin
    assert f"{CORS}allow-credentials" not in answer.headers
    allowed = {name.strip().lower() for name in answer.headers[f"{CORS}allow-headers"].split(",")}
    assert {name.strip().lower() for name in SENT.split(",")} <= allowed
    assert {"GET", "POST", "DELETE", "PATCH"} <= set(answer.headers[f"{CORS}allow-methods"].split(", "))
    assert "Origin" in answer.headers["vary"]


async def test_another_page_s_preflight_is_refused(world: World) -> None:
    answer = await preflight(world, "/api/v1/task", OTHER)
    assert (answer.status_code, f"{CORS}allow-origin" in answer.headers) == (400, False)


async def test_a_page_may_read_the_answer_and_its_headers(world: World) -> None:
    body = {"model": "kling", "task_type": "video_generation", "input": {}}
    answer = await world.api.post("/api/v1/task", json=body, headers={"origin": PAGE, "idempotency-key": new_id()})
    assert (answer.status_code, answer.headers[f"{CORS}allow-origin"]) == (200, PAGE)
    assert {name.strip().lower() for name in answer.headers[f"{CORS}expose-headers"].split(",")} == READ
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("GET", "/api/v1/tasks", "wrong", 401),
        ("GET", "/api/v1/tasks/x", None, 404),
        ("GET", "/nothing", None, 404),
        ("PUT", "/api/v1/task", None, 405),
        ("POST", "/api/v1/runs", None, 400),
    ],
)
async def test_a_page_may_read_an_error(world: World, method: str, path: str, key: str | None, status: int) -> None:
    headers = {"origin": PAGE, **({"x-api-key": key} if key else {})}
    answer = await world.api.request(method, path, headers=headers)
    assert (answer.status_code, answer.headers[f"{CORS}allow-origin"]) == (status, PAGE)


async def test_another_page_gets_no_permission_and_a_client_without_a_page_gets_its_answer(world: World) -> None:
    for headers in ({"origin": OTHER}, {}):
        answer = await world.api.get("/api/v1/tasks", headers=headers)
        assert (answer.status_code, f"{CORS}allow-origin" in answer.headers) == (200, False)
        assert answer.headers["vary"] == "Origin"


async def test_a_page_may_read_the_stream_as_it_comes(world: World) -> None:
    headers = {"origin": PAGE, "accept": "text/event-stream"}
    async with world.api.stream("GET", "/api/v1/events", headers=headers) as answer:
        assert (answer.status_code, answer.headers[f"{CORS}allow-origin"]) == (200, PAGE)
        task_id = await world.created()
        async for line in answer.aiter_lines():
            if task_id in line:
                break


async def test_webhooks_and_the_paths_for_operators_are_not_for_pages(world: World) -> None:
    task_id = await world.created(SILENT)
    body = notice((await world.task(task_id))["provider_task_id"], "processing")
    headers = {"origin": PAGE, "x-webhook-secret": hook_secret(world, task_id)}
    hooked = await world.provider.post(f"{world.base}/hooks/piapi/{task_id}", json=body, headers=headers)
    assert (hooked.status_code, cors_headers(hooked), "vary" in hooked.headers) == (200, set(), False)
    for path in (f"/hooks/piapi/{task_id}", "//hooks//piapi", "/metrics", "/livez", "/readyz/"):
        answer = await preflight(world, path, PAGE)
        assert (answer.status_code, cors_headers(answer)) == (405, set())
    assert cors_headers(await world.api.get("/metrics", headers={"origin": PAGE})) == set()


async def test_any_origin_may_be_let_in(backend: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    async with in_process(tmp_path_factory.mktemp("any"), cors_origins="*") as world:
        asked = await preflight(world, "/api/v1/task", OTHER)
        answer = await world.api.get("/api/v1/tasks", headers={"origin": OTHER})
    assert (asked.headers[f"{CORS}allow-origin"], answer.headers[f"{CORS}allow-origin"]) == ("*", "*")
    assert f"{CORS}allow-credentials" not in answer.headers


async def test_without_the_setting_no_page_is_let_in(backend: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    async with in_process(tmp_path_factory.mktemp("off")) as world:
        asked = await preflight(world, "/api/v1/task", PAGE)
        answer = await world.api.get("/api/v1/tasks", headers={"origin": PAGE})
    assert (asked.status_code, asked.headers["allow"]) == (405, "POST")
    assert cors_headers(asked) | cors_headers(answer) == set()
    assert "vary" not in answer.headers
