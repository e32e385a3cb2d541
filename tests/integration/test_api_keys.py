"""API keys: which calls each scope allows, with either header; creating and revoking keys."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from models import Scope
from receiver.domain.ids import new_id
from receiver.domain.keyring import hash_api_key
from tests.fakes.rows import select
from tests.fakes.world import API_KEY, World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

PIAPI, NATIVE = "piapi", "native"
PATHS = [
    ("POST", "/api/v1/task", PIAPI, Scope.WRITE),
    ("GET", "/api/v1/task/x", PIAPI, Scope.READ),
    ("DELETE", "/api/v1/task/x", PIAPI, Scope.WRITE),
    ("POST", "/api/v1/task/x/cancel", PIAPI, Scope.WRITE),
    ("DELETE", "/api/v1/tasks", PIAPI, Scope.WRITE),
    ("GET", "/account/active_tasks", PIAPI, Scope.READ),
    ("GET", "/account/info", PIAPI, Scope.READ),
    ("GET", "/api/open/tasks/histories", PIAPI, Scope.READ),
    ("GET", "/api/v1/tasks", NATIVE, Scope.READ),
    ("GET", "/api/v1/tasks/x", NATIVE, Scope.READ),
    ("GET", "/api/v1/tasks/x/events", NATIVE, Scope.READ),
    ("POST", "/api/v1/tasks/x/refresh", NATIVE, Scope.WRITE),
    ("POST", "/api/v1/tasks/x/cancel", NATIVE, Scope.WRITE),
    ("POST", "/api/v1/runs", NATIVE, Scope.WRITE),
    ("GET", "/api/v1/runs", NATIVE, Scope.READ),
    ("GET", "/api/v1/runs/x", NATIVE, Scope.READ),
    ("POST", "/api/v1/runs/x/cancel", NATIVE, Scope.WRITE),
    ("POST", "/api/v1/runs/x/retry", NATIVE, Scope.WRITE),
    ("GET", "/api/v1/jobs/x", NATIVE, Scope.READ),
    ("POST", "/api/v1/webhooks", NATIVE, Scope.WRITE),
    ("GET", "/api/v1/webhooks", NATIVE, Scope.READ),
    ("GET", "/api/v1/webhooks/x", NATIVE, Scope.READ),
    ("PATCH", "/api/v1/webhooks/x", NATIVE, Scope.WRITE),
    ("DELETE", "/api/v1/webhooks/x", NATIVE, Scope.WRITE),
    ("POST", "/api/v1/keys", NATIVE, Scope.ADMIN),
    ("GET", "/api/v1/keys", NATIVE, Scope.ADMIN),
    ("GET", "/api/v1/keys/x", NATIVE, Scope.ADMIN),
    ("DELETE", "/api/v1/keys/x", NATIVE, Scope.ADMIN),
    ("GET", "/api/v1/master-keys", NATIVE, Scope.ADMIN),
    ("POST", "/api/v1/master-keys/rotate", NATIVE, Scope.ADMIN),
    ("GET", "/api/v1/audit", NATIVE, Scope.ADMIN),
]
ORDER = [Scope.READ, Scope.WRITE, Scope.ADMIN]
every_path = pytest.mark.parametrize(("method", "path", "dialect", "scope"), PATHS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module: each test makes its own keys."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def anonymous(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    async with httpx.AsyncClient(base_url=world.base) as client:
        yield client


async def made(world: World, scope: str) -> dict[str, str]:
    answer = await world.api.post("/api/v1/keys", json={"name": f"a {scope} key", "scope": scope})
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keys(world: World) -> dict[Scope, str]:
    """One key of each scope."""
    return {scope: (await made(world, scope))["key"] for scope in ORDER}


def refused(answer: httpx.Response, dialect: str, status: int, code: str) -> bool:
    """Return whether it is an error of this status in this dialect, with the code where the dialect has codes."""
    if dialect == PIAPI:
        return answer.status_code == status and answer.json()["code"] == status and answer.json()["data"] is None
    return answer.status_code == status and answer.json()["error"]["code"] == code


@every_path
async def test_without_a_key_every_path_is_refused_in_its_dialect(
    anonymous: httpx.AsyncClient, method: str, path: str, dialect: str, scope: Scope
) -> None:
    answer = await anonymous.request(method, path)
    assert refused(answer, dialect, 401, "missing_authorization_header")
    assert "X-API-Key" in answer.text
    wrong = await anonymous.request(method, path, headers={"x-api-key": "no-key-of-ours"})
    assert refused(wrong, dialect, 401, "invalid_api_key")


@every_path
async def test_both_headers_work_for_every_path(
    anonymous: httpx.AsyncClient, method: str, path: str, dialect: str, scope: Scope
) -> None:
    statuses = set()
    for headers in (
        {"X-API-Key": API_KEY},
        {"Authorization": f"Bearer {API_KEY}"},
        {"authorization": f"bearer {API_KEY}"},
    ):
        statuses.add((await anonymous.request(method, path, headers=headers)).status_code)
    assert len(statuses) == 1
    assert statuses <= {200, 400, 404}


@every_path
async def test_a_key_may_call_what_its_scope_allows(
    keys: dict[Scope, str], anonymous: httpx.AsyncClient, method: str, path: str, dialect: str, scope: Scope
) -> None:
    for owned, key in keys.items():
        answer = await anonymous.request(method, path, headers={"x-api-key": key})
        if ORDER.index(owned) >= ORDER.index(scope):
            assert answer.status_code in (200, 400, 404)
        else:
            assert refused(answer, dialect, 403, "permission_denied")
            assert scope in answer.text


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("Basic abc", "invalid_authorization_scheme"),
        ("Bearer", "missing_bearer_token"),
        (API_KEY, "invalid_authorization_scheme"),
        ("Bearer unknown-key", "invalid_api_key"),
    ],
)
async def test_each_fault_of_the_header_has_its_error_code(
    anonymous: httpx.AsyncClient, authorization: str, code: str
) -> None:
    answer = await anonymous.get("/api/v1/tasks", headers={"authorization": authorization})
    assert refused(answer, NATIVE, 401, code)
    assert answer.json()["error"]["type"] == "authentication_error"


async def test_health_and_metrics_need_no_key(anonymous: httpx.AsyncClient) -> None:
    assert (await anonymous.get("/livez")).json() == {"status": "ok"}
    assert (await anonymous.get("/readyz")).json() == {"status": "ready"}
    assert "ringback_updates_total" in (await anonymous.get("/metrics")).text


async def test_a_key_is_returned_once_and_stored_as_a_hash(world: World) -> None:
    key = await made(world, "read")
    listed = (await world.api.get("/api/v1/keys")).json()["data"]["data"]
    assert listed[0] == {name: value for name, value in key.items() if name != "key"}
    assert key["key"].startswith(key["hint"])
    assert len(key["hint"]) <= 8
    (row,) = select(world, "SELECT * FROM api_key WHERE uid = ?", key["id"])
    assert row["hash"] == hash_api_key(key["key"])
    assert key["key"] not in row.values()


async def test_a_revoked_key_is_refused_at_once(world: World, anonymous: httpx.AsyncClient) -> None:
    key = await made(world, "admin")
    headers = {"x-api-key": key["key"]}
    assert (await anonymous.get("/api/v1/keys", headers=headers)).status_code == 200
    revoked = await world.api.delete(f"/api/v1/keys/{key['id']}")
    assert revoked.json()["data"] == {"object": "key", "id": key["id"], "deleted": True}
    assert refused(await anonymous.get("/api/v1/keys", headers=headers), NATIVE, 401, "invalid_api_key")
    assert key["id"] not in [each["id"] for each in (await world.api.get("/api/v1/keys")).json()["data"]["data"]]
    assert (await world.api.delete(f"/api/v1/keys/{key['id']}")).status_code == 404


async def test_revoking_an_unknown_key_is_404(world: World) -> None:
    answer = await world.api.delete(f"/api/v1/keys/{new_id()}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "key_id")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": " "}, "name"),
        ({"name": "k", "scope": "root"}, "scope"),
        ({"name": "k", "colour": "red"}, "colour"),
        ({"name": "k" * 201}, "name"),
    ],
)
async def test_a_bad_key_request_is_refused_by_its_field(world: World, body: dict[str, str], field: str) -> None:
    answer = await world.api.post("/api/v1/keys", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


async def test_the_default_scope_is_write(world: World) -> None:
    answer = await world.api.post("/api/v1/keys", json={"name": "k"})
    assert answer.json()["data"]["scope"] == "write"
