"""Paths with more slashes than needed, ids with special characters, and methods that a path does not accept."""

from collections.abc import AsyncIterator
from inspect import iscoroutinefunction
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import httpx
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.api.routes import refuse_path, report_bug, routes
from receiver.domain.ids import new_id
from tests.fakes.command import Ringback
from tests.fakes.inbound import PICTURE, SILENT, hook_secret, notice
from tests.fakes.servers import served
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHARED_SECRET = "a-secret-for-tasks-that-were-made-elsewhere"
ODD_IDS = ["a/b", "a//b", "/a/", "x/events", "a?b=c", "a#b", "50%", "a%2Fb", "a b", "ünïcode/猫", "a+b;c=d&e", "a\\b"]


async def any_task(request: Request) -> Response:
    """Answer for a provider that has a task with every id."""
    raw: bytes = request.scope["raw_path"]
    task_id = unquote_to_bytes(raw.removeprefix(b"/api/v1/task/")).decode()
    task = {"task_id": task_id, "model": "kling", "task_type": "video_generation", "status": "pending"}
    return JSONResponse({"code": 200, "data": task, "message": "success"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module: each uses only its own tasks."""
    async with in_process(tmp_path_factory.mktemp("world"), piapi_webhook_secret=SHARED_SECRET) as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def odd(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A world whose provider has a task with every id."""
    async with (
        served(Starlette(routes=[Route("/{path:path}", any_task, methods=["GET", "DELETE"])])) as provider,
        in_process(tmp_path_factory.mktemp("odd"), piapi_base_url=provider) as world,
    ):
        yield world


async def adopted(world: World, provider_task_id: str) -> str:
    """Adopt the provider's task; return Ringback's id."""
    answer = await world.api.post("/api/v1/tasks/adopt/", json={"provider_task_id": provider_task_id})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["task_id"])


@pytest.mark.parametrize("path", ["/api/v1/task", "/api/v1/task/", "//api/v1/task", "/api//v1/task//"])
async def test_a_create_is_answered_with_any_number_of_slashes(world: World, path: str) -> None:
    body = {"model": "kling", "task_type": "video_generation", "input": {"prompt": "a cat"}}
    url = httpx.URL(world.base).copy_with(raw_path=path.encode())
    answer = await world.api.post(url, json=body)
    assert (answer.status_code, answer.history) == (200, [])


@pytest.mark.parametrize("path", [route.path for route in routes() if isinstance(route, Route)])
async def test_every_path_is_answered_alike_with_a_slash_at_its_end(world: World, path: str) -> None:
    for param in ("task_id", "webhook_id", "delivery_id", "replay_id", "key_id", "run_id", "job_id"):
        path = path.replace(f"{{{param}}}", new_id())
    path = path.replace("{provider}", "piapi")
    (route,) = [each for each in routes() if isinstance(each, Route) and each.path_regex.match(path)][:1]
    method = next(iter((route.methods or {"POST"}) - {"HEAD"}))
    plain, slashed = [await world.api.request(method, each) for each in (path, f"{path}/")]
    assert plain.status_code == slashed.status_code
    assert slashed.status_code < 300 or slashed.status_code >= 400
    assert plain.headers.get("content-type") == slashed.headers.get("content-type")


async def test_webhooks_are_applied_with_a_slash_at_the_end(world: World) -> None:
    first, second = await world.created(SILENT), await world.created(SILENT)
    for task_id, path, secret in (
        (first, f"/hooks/piapi/{first}/", hook_secret(world, first)),
        (second, "/hooks/piapi/", SHARED_SECRET),
    ):
        body = notice((await world.task(task_id))["provider_task_id"], "completed", output=PICTURE)
        answer = await world.provider.post(f"{world.base}{path}", json=body, headers={"x-webhook-secret": secret})
        assert answer.status_code == 200, answer.text
        assert (await world.task(task_id))["status"] == "completed"


@pytest.mark.parametrize("provider_task_id", ODD_IDS)
async def test_a_task_is_found_by_a_provider_s_id_of_any_characters(odd: World, provider_task_id: str) -> None:
    task_id = await adopted(odd, provider_task_id)
    quoted = quote(provider_task_id, safe="")
    calls = [
        ("GET", f"/api/v1/task/{quoted}"),
        ("GET", f"/api/v1/tasks/{quoted}"),
        ("GET", f"/api/v1/tasks/{quoted}/"),
        ("POST", f"/api/v1/tasks/{quoted}/refresh"),
        ("POST", f"/api/v1/tasks/{quoted}/cancel"),
        ("POST", f"/api/v1/task/{quoted}/cancel"),
        ("DELETE", f"/api/v1/task/{quoted}"),
    ]
    for method, path in calls:
        answer = await odd.api.request(method, path)
        assert answer.status_code in (200, 409), (method, path, answer.text)
        if answer.status_code == 200:
            assert answer.json()["data"]["task_id"] == task_id
    events = await odd.api.get(f"/api/v1/tasks/{quoted}/events")
    assert events.status_code == 200
    assert events.json()["data"]["data"], "the adopted task's history"
    retried = await odd.api.post(f"/api/v1/tasks/{quoted}/retry")
    assert retried.status_code != 404, retried.text


@pytest.mark.parametrize("provider_task_id", ["raw/b", "raw/b/c"])
async def test_a_task_is_found_by_an_id_with_plain_slashes(odd: World, provider_task_id: str) -> None:
    task_id = await adopted(odd, provider_task_id)
    for path in (f"/api/v1/task/{provider_task_id}", f"/api/v1/tasks/{provider_task_id}"):
        answer = await odd.api.get(path)
        assert (answer.status_code, answer.json()["data"]["task_id"]) == (200, task_id)
    refreshed = await odd.api.post(f"/api/v1/tasks/{provider_task_id}/refresh")
    assert refreshed.json()["data"]["task_id"] == task_id
    assert (await odd.api.get(f"/api/v1/tasks/{provider_task_id}/events")).status_code == 200


async def test_the_command_line_finds_a_task_by_an_id_with_a_slash(odd: World) -> None:
    task_id = await adopted(odd, "cli/a b%2F?#")
    assert (await Ringback(odd).data("task", "get", "cli/a b%2F?#"))["task_id"] == task_id


def paths() -> dict[str, set[str]]:
    """Return the methods of each path of the API."""
    found: dict[str, set[str]] = {}
    for route in routes():
        if isinstance(route, Route) and route.methods:
            found.setdefault(route.path, set()).update(route.methods)
    return found


@pytest.mark.parametrize("path", paths())
async def test_405_names_all_methods_of_the_path(world: World, path: str) -> None:
    answer = await world.api.request("TRACE", path.replace("{", "").replace("}", ""))
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) >= paths()[path]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/hooks/piapi", f"/hooks/piapi/{new_id()}/"], ids=["shared", "of-a-task"])
async def test_405_of_a_webhook_path_names_post(world: World, path: str) -> None:
    answer = await world.api.get(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("path", "is_piapi"),
    [("/api/v1/task/x/y/cancel", True), ("/api/v1/task", True), ("/api/v1/runs", False), ("/livez", False)],
)
async def test_405_has_the_form_of_the_path_s_dialect(world: World, path: str, is_piapi: bool) -> None:
    body: dict[str, Any] = (await world.api.put(path)).json()
    assert (body["code"] == 405) if is_piapi else (body["error"]["code"] == "method_not_allowed")


@pytest.mark.parametrize(
    ("path", "is_piapi"),
    [("/account/nothing/", True), ("/api/open/x", True), ("/hooks", True), ("/x", False), ("/api/v2//task", False)],
)
async def test_an_unknown_path_is_404_in_the_form_of_its_dialect(world: World, path: str, is_piapi: bool) -> None:
    answer = await world.api.get(path)
    body = answer.json()
    assert answer.status_code == 404
    assert (body["code"] == 404) if is_piapi else (body["error"]["code"] == "not_found")


async def test_a_refused_path_costs_no_thread() -> None:
    # Starlette calls a plain function in a thread, of which there are few, and loads all of anyio for the first.
    assert all(map(iscoroutinefunction, (refuse_path, report_bug)))
