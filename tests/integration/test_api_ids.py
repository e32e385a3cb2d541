"""Every route and filter that takes an id: 400 for what is not a UUID, 404 for an id that does not exist."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from starlette.routing import Route

from receiver.api.routes import routes
from receiver.domain.ids import new_id
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER_PATHS = {
    *("/hooks/{provider}/{task_id}", "/hooks/{provider}"),
    *(f"/v1/{name}/{{owner}}/{{name}}/predictions" for name in ("models", "deployments")),
    "/v1/models/{owner}/{name}/versions/{version_id}",
}
"""Inbound webhooks: a secret that belongs to the path is checked, and a wrong path is refused with 401. And names of
models, which may be any text."""
UUID_PARAMS = (
    "webhook_id",
    "delivery_id",
    "replay_id",
    "key_id",
    "run_id",
    "job_id",
    "organization_id",
    "bulk_action_id",
    "receipt_id",
)
TEXT_PARAMS = ("task_id", "provider", "account")
"""A provider's id of a task may be any text; accounts have names besides."""
NOT_UUIDS = ("17", "no-such-id", "018f0000-0000-7000-8000-00000000000", "%00", "%E2%80%BD", "a" * 300)
UUID_FILTERS = (
    ("/api/v1/deliveries", "webhook_id"),
    ("/api/v1/deliveries", "event_id"),
    ("/api/v1/webhooks/{webhook_id}/deliveries", "event_id"),
    ("/api/v1/events", "run_id"),
    ("/api/v1/tasks", "run_id"),
)
TEXT_FILTERS = ("/api/v1/deliveries", "/api/v1/webhooks/{webhook_id}/deliveries", "/api/v1/events", "/api/v1/receipts")
"""Lists that are filtered by `task_id`."""


def not_found(param: str) -> str:
    """Return the error code of an id that does not exist."""
    return f"{param.removesuffix('_id')}_not_found"


def calls() -> Iterator[tuple[str, str, str]]:
    """Return method, path and name for every id in the path of every route."""
    for route in routes():
        assert isinstance(route, Route)
        if route.path in OTHER_PATHS:
            continue
        for param in route.param_convertors:
            for method in sorted(route.methods or ()):
                yield method, route.path, param


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all of these: none of them changes anything."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def webhook_id(world: World) -> str:
    """Return a webhook that exists, for the paths below it."""
    return str((await world.webhook())["id"])


async def error(world: World, method: str, path: str, status: int) -> dict[str, Any]:
    """Make a call that must be refused with `status`; return what is said of it, in the form of Pi."""
    answer = await world.api.request(method, path)
    assert answer.status_code == status, (method, path, answer.text)
    if method == "HEAD":
        return {}
    body = answer.json()
    if "error" in body:
        return dict(body["error"])
    param, _, message = body["message" if "message" in body else "detail"].partition(": ")
    return {"param": param, "message": message}


async def test_every_id_in_a_path_is_one_of_those_that_are_covered_here() -> None:
    assert {param for _, _, param in calls()} == {*UUID_PARAMS, *TEXT_PARAMS}


@pytest.mark.parametrize(("method", "path", "param"), list(calls()))
async def test_an_id_in_a_path(world: World, webhook_id: str, method: str, path: str, param: str) -> None:
    others = {"webhook_id": webhook_id} if param != "webhook_id" else {"replay_id": new_id()}
    others |= {"provider": "fal"} if param != "provider" else {"account": "any"}

    async def refused(given: str, status: int) -> dict[str, Any]:
        return await error(world, method, path.format(**{param: given}, **others), status)

    for given in NOT_UUIDS:
        found = await refused(given, 404 if param in TEXT_PARAMS else 400)
        if found:
            assert found["param"] == param
        if found and param in UUID_PARAMS:
            assert found["code"] == f"invalid_{param}"
            assert found["message"].endswith(" is not a UUID")
    for given in (new_id(), new_id().upper()):
        found = await refused(given, 404)
        if found:
            assert found["param"] == param
            assert found.get("code", not_found(param)) == not_found(param)


@pytest.mark.parametrize(("path", "param"), UUID_FILTERS)
async def test_an_id_in_a_query(world: World, webhook_id: str, path: str, param: str) -> None:
    path = path.format(webhook_id=webhook_id)
    for given in NOT_UUIDS:
        found = await error(world, "GET", f"{path}?{param}={given}", 400)
        assert (found["code"], found["param"]) == ("invalid_query_params", param)
        assert found["message"].endswith(" is not a UUID")
    for given in (new_id(), new_id().upper()):
        found = await error(world, "GET", f"{path}?{param}={given}", 404)
        assert (found["code"], found["param"]) == (not_found(param), param)


@pytest.mark.parametrize("path", TEXT_FILTERS)
async def test_a_task_s_id_in_a_query(world: World, webhook_id: str, path: str) -> None:
    for given in (*NOT_UUIDS, new_id()):
        found = await error(world, "GET", f"{path.format(webhook_id=webhook_id)}?task_id={given}", 404)
        assert (found["code"], found["param"]) == ("task_not_found", "task_id")
