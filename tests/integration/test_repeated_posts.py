"""Every POST with an `Idempotency-Key`: where the first response was lost, the repetition tells what was done, once."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio
from starlette.routing import Route

from receiver.api.endpoint import RouteEndpoint
from receiver.api.passthrough import FORWARDED_POSTS, UPLOAD_PATH
from receiver.api.routes import routes
from receiver.domain.ids import new_id
from receiver.errors import OutcomeUnknown
from receiver.tracking.tracker import Tracker
from tests.fakes.past_events import hours_ago
from tests.fakes.pipeline import FAILS, WAITING, begin, step, until, world_with_actions
from tests.fakes.pipeline import ended as run_ended
from tests.fakes.rows import Rows, change, eventually, select
from tests.fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.sqlite_only("the rules are the API's; what the two databases do for them is tested in tests/storage"),
]

TASK = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat"}}
REPLAYED = "x-idempotency-replayed"
NOT_OBEYED = {*FORWARDED_POSTS, UPLOAD_PATH, "/api/v1/tasks/wait"}
"""Requests that are passed on, for the provider does not know the key; and one that only reads."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module: each uses only what it made."""
    async with world_with_actions(tmp_path_factory.mktemp("world"), retry_schedule="0") as world:
        yield world


async def _nothing() -> None:
    return


@dataclass(frozen=True)
class Case:
    """A request, and a query for what it has done: `done` of them when it was done once."""

    path: str
    query: str
    done: int = 1
    body: Any = field(default_factory=dict)
    status: int = 200
    shows: Any = None
    """What the response's `data` has at least."""
    meanwhile: Callable[[], Awaitable[Any]] = _nothing
    """What happens between the first request and its repetition."""
    count: Callable[[Rows], int] = len


Prepare = Callable[[World], Awaitable[Case]]


async def of_create(world: World) -> Case:
    mine = new_id()
    return Case("/api/v1/task", _tasks_with(mine), body={**TASK, "metadata": {"mine": mine}})


async def of_prediction(world: World) -> Case:
    return _prediction("/v1/predictions", {"version": "stability-ai/sdxl"})


async def of_model_prediction(world: World) -> Case:
    return _prediction("/v1/models/fal:fal-ai/flux/predictions", {})


async def of_deployment_prediction(world: World) -> Case:
    return _prediction("/v1/deployments/acme/upscaler/predictions", {})


def _prediction(path: str, body: Any) -> Case:
    mine = new_id()
    query = f"SELECT uid FROM task WHERE CAST(input AS text) LIKE '%{mine}%'"
    return Case(path, query, body={**body, "input": {"mine": mine}}, status=201)


async def of_prediction_cancel(world: World) -> Case:
    task_id = await world.created(WAITING)
    return Case(f"/v1/predictions/{task_id}/cancel", _events(task_id, "task.cancelled"), shows={"status": "canceled"})


async def of_bulk(world: World) -> Case:
    mine = new_id()
    body = {"tasks": [{**TASK, "metadata": {"mine": mine}}] * 2}
    return Case("/api/v1/tasks", _tasks_with(mine), done=2, body=body, status=202)


async def of_adopt(world: World) -> Case:
    made = await world.provider.post("/api/v1/task", json=TASK)
    name = made.json()["data"]["task_id"]
    query = f"SELECT uid FROM task WHERE provider_task_id = '{name}'"
    return Case("/api/v1/tasks/adopt", query, body={"provider_task_id": name})


async def of_refresh(world: World) -> Case:
    task_id = await world.created()
    await world.ended(task_id)
    return Case(f"/api/v1/tasks/{task_id}/refresh", _events(task_id, "task.completed"))


async def of_cancel(world: World) -> Case:
    task_id = await world.created(WAITING)
    return Case(f"/api/v1/tasks/{task_id}/cancel", _events(task_id, "task.cancelled"), shows={"status": "cancelled"})


async def of_piapi_cancel(world: World) -> Case:
    task_id = await world.created(WAITING)
    return Case(f"/api/v1/task/{task_id}/cancel", _events(task_id, "task.cancelled"))


async def of_retry(world: World) -> Case:
    task_id = await world.created(FAILS)
    await world.ended(task_id)
    query = f"SELECT uid FROM task WHERE uid = '{task_id}' AND attempt = 2"

    async def fails_again() -> None:
        await eventually(world, f"{query} AND status = 'failed'", lambda rows: rows)

    return Case(f"/api/v1/tasks/{task_id}/retry", query, shows={"attempt": 2}, meanwhile=fails_again)


async def of_bulk_cancel(world: World) -> Case:
    mine = new_id()
    body = {"metadata": {"mine": mine}}
    task_id = await world.created(WAITING, **body)

    async def is_cancelled() -> None:
        await world.ended(task_id)

    query = f"SELECT uid FROM bulk_action WHERE CAST(filter AS text) LIKE '%{mine}%'"
    return Case("/api/v1/tasks/cancel", query, body=body, status=202, shows={"matched": 1}, meanwhile=is_cancelled)


async def of_bulk_retry(world: World) -> Case:
    mine = new_id()
    query = f"SELECT uid FROM bulk_action WHERE CAST(filter AS text) LIKE '%{mine}%'"
    return Case("/api/v1/tasks/retry", query, body={"metadata": {"mine": mine}}, status=202, shows={"status": "done"})


async def of_bulk_refresh(world: World) -> Case:
    mine = new_id()
    query = f"SELECT uid FROM bulk_action WHERE CAST(filter AS text) LIKE '%{mine}%'"
    return Case("/api/v1/tasks/refresh", query, body={"metadata": {"mine": mine}}, status=202, shows={"status": "done"})


async def of_bulk_action_cancel(world: World) -> Case:
    uid = new_id()
    change(world, _BULK_ACTION, uid)
    query = f"SELECT uid FROM bulk_action WHERE uid = '{uid}' AND status = 'cancelled'"
    return Case(f"/api/v1/bulk-actions/{uid}/cancel", query, shows={"status": "cancelled"})


async def of_run(world: World) -> Case:
    mine = new_id()
    body = {"steps": [step("a")], "metadata": {"mine": mine}}
    return Case("/api/v1/runs", _tasks_with(mine), body=body, status=202)


async def of_run_cancel(world: World) -> Case:
    run_id = await begin(world, step("a", sandbox=WAITING))
    query = f"SELECT uid FROM event WHERE run_uid = '{run_id}' AND type = 'run.cancelled'"
    return Case(f"/api/v1/runs/{run_id}/cancel", query, shows={"status": "cancelled"})


async def of_run_retry(world: World) -> Case:
    run_id = await begin(world, step("a", sandbox=FAILS))
    first = (await run_ended(world, run_id))["steps"][0]["job_id"]
    query = f"SELECT uid FROM task WHERE run_uid = '{run_id}' AND uid <> '{first}'"

    async def fails_again() -> None:
        await until(world, run_id, lambda run: run["status"] == "failed" and run["steps"][0]["job_id"] != first)

    return Case(f"/api/v1/runs/{run_id}/retry", query, meanwhile=fails_again)


async def of_webhook(world: World) -> Case:
    url = f"{world.subscriber.url}/{new_id()}"
    query = f"SELECT uid FROM subscription WHERE endpoint_url = '{url}'"
    return Case("/api/v1/webhooks", query, body={"endpoint_url": url})


async def of_rotation(world: World) -> Case:
    webhook = await world.webhook(event_types=["run.completed"])
    query = f"SELECT retired_secrets FROM subscription WHERE uid = '{webhook['id']}'"
    return Case(f"/api/v1/webhooks/{webhook['id']}/rotate-secret", query, count=_retired)


async def of_ping(world: World) -> Case:
    webhook = await world.webhook(event_types=["run.completed"])
    query = f"SELECT uid FROM subscription WHERE uid = '{webhook['id']}'"
    return Case(f"/api/v1/webhooks/{webhook['id']}/test", query, shows={"delivered": True})


async def of_replay(world: World) -> Case:
    return await _replayed(world, "replay")


async def of_recover(world: World) -> Case:
    return await _replayed(world, "recover")


async def of_replay_cancel(world: World) -> Case:
    webhook = await world.webhook(event_types=["run.created"])
    await world.api.patch(f"/api/v1/webhooks/{webhook['id']}", json={"is_active": False})  # so the replay stays
    uid = new_id()
    change(world, _REPLAY, uid, webhook["id"])
    query = f"SELECT uid FROM replay WHERE uid = '{uid}' AND status = 'cancelled'"
    return Case(f"/api/v1/webhooks/{webhook['id']}/replays/{uid}/cancel", query, shows={"status": "cancelled"})


async def of_delivery_retry(world: World) -> Case:
    world.subscriber.answer = lambda _number, _request: 500
    webhook = await world.webhook(event_types=["task.failed"])
    await world.created(FAILS)
    mine = f"subscription_id = (SELECT id FROM subscription WHERE uid = '{webhook['id']}')"
    (row,) = await eventually(world, f"SELECT uid FROM delivery WHERE status = 'dead' AND {mine}", lambda rows: rows)
    query = f"SELECT uid FROM delivery WHERE schedule_from = 1 AND {mine}"

    async def fails_again() -> None:
        await eventually(world, f"{query} AND attempt = 2 AND status = 'dead'", lambda rows: rows)

    return Case(f"/api/v1/deliveries/{row['uid']}/retry", query, status=202, meanwhile=fails_again)


async def of_key(world: World) -> Case:
    mine = new_id()
    return Case("/api/v1/keys", f"SELECT uid FROM api_key WHERE name = '{mine}'", body={"name": mine})


async def of_master_key(world: World) -> Case:
    query = "SELECT uid FROM organization WHERE name = 'default'"
    return Case("/api/v1/master-keys/rotate", query, body={"dry_run": False}, shows={"unreadable": 0})


async def of_dashboard_link(world: World) -> Case:
    query = "SELECT uid FROM organization WHERE name = 'default'"
    return Case("/api/v1/dashboard-links", query, shows={"object": "dashboard_link"})


async def of_account(world: World) -> Case:
    name = new_id()[:13]
    query = f"SELECT uid FROM provider_account WHERE name = '{name}'"
    body = {"name": name, "credentials": {"api_key": "a-key-8Wj4Ps"}}
    return Case("/api/v1/providers/fal/accounts", query, body=body, shows={"name": name})


async def of_account_check(world: World) -> Case:
    query = "SELECT uid FROM organization WHERE name = 'default'"
    return Case("/api/v1/providers/fal/accounts/default/check", query, shows={"is_accepted": True})


async def of_organization(world: World) -> Case:
    name = new_id()[:13]
    query = f"SELECT k.uid FROM api_key k JOIN organization o ON o.id = k.organization_id WHERE o.name = '{name}'"
    return Case("/api/v1/organizations", query, body={"name": name}, shows={"name": name})


CASES: dict[str, Prepare] = {
    "/api/v1/task": of_create,
    "/api/v1/task/{task_id}/cancel": of_piapi_cancel,
    "/v1/predictions": of_prediction,
    "/v1/models/{owner}/{name}/predictions": of_model_prediction,
    "/v1/deployments/{owner}/{name}/predictions": of_deployment_prediction,
    "/v1/predictions/{task_id}/cancel": of_prediction_cancel,
    "/api/v1/tasks": of_bulk,
    "/api/v1/tasks/cancel": of_bulk_cancel,
    "/api/v1/tasks/retry": of_bulk_retry,
    "/api/v1/tasks/refresh": of_bulk_refresh,
    "/api/v1/bulk-actions/{bulk_action_id}/cancel": of_bulk_action_cancel,
    "/api/v1/tasks/adopt": of_adopt,
    "/api/v1/tasks/{task_id}/refresh": of_refresh,
    "/api/v1/tasks/{task_id}/cancel": of_cancel,
    "/api/v1/tasks/{task_id}/retry": of_retry,
    "/api/v1/webhooks": of_webhook,
    "/api/v1/webhooks/{webhook_id}/rotate-secret": of_rotation,
    "/api/v1/webhooks/{webhook_id}/test": of_ping,
    "/api/v1/webhooks/{webhook_id}/recover": of_recover,
    "/api/v1/webhooks/{webhook_id}/replay": of_replay,
    "/api/v1/webhooks/{webhook_id}/replays/{replay_id}/cancel": of_replay_cancel,
    "/api/v1/deliveries/{delivery_id}/retry": of_delivery_retry,
    "/api/v1/keys": of_key,
    "/api/v1/master-keys/rotate": of_master_key,
    "/api/v1/dashboard-links": of_dashboard_link,
    "/api/v1/organizations": of_organization,
    "/api/v1/providers/{provider}/accounts": of_account,
    "/api/v1/providers/{provider}/accounts/{account}/check": of_account_check,
    "/api/v1/runs": of_run,
    "/api/v1/runs/{run_id}/cancel": of_run_cancel,
    "/api/v1/runs/{run_id}/retry": of_run_retry,
}
_BULK_ACTION = (
    "INSERT INTO bulk_action (uid, organization_id, kind, requested_by, status, filter, matched, done, cursor, newest, "
    "due_at, leased, created_at) SELECT ?, id, 'cancel', 'it', 'running', '{}', 1, 0, 0, 0, "
    "'2100-01-01 00:00:00.000000', false, "
    "created_at FROM organization WHERE name = 'default'"
)
_REPLAY = (
    "INSERT INTO replay (uid, organization_id, subscription_id, kind, status, since, until, event_types, total, sent, "
    "cursor, created_at) SELECT ?, 1, id, 'replay', 'running', created_at, created_at, '[]', 0, 0, 0, created_at "
    "FROM subscription WHERE uid = ?"
)


def _tasks_with(mine: str) -> str:
    return f"SELECT uid FROM task WHERE CAST(metadata AS text) LIKE '%{mine}%'"


def _events(task_id: str, type: str) -> str:
    return f"SELECT uid FROM event WHERE type = '{type}' AND task_id = (SELECT id FROM task WHERE uid = '{task_id}')"


def _retired(rows: Rows) -> int:
    return len(orjson.loads(rows[0]["retired_secrets"] or "[]"))


async def _replayed(world: World, kind: str) -> Case:
    webhook = await world.webhook(event_types=["run.created"])
    path = f"/api/v1/webhooks/{webhook['id']}/{kind}"
    query = (
        f"SELECT uid FROM replay WHERE subscription_id = (SELECT id FROM subscription WHERE uid = '{webhook['id']}')"
    )
    return Case(path, query, body={"since": hours_ago(2)}, status=202)


class Client:
    """A client that repeats a request with the same key after the first response was lost."""

    def __init__(self, world: World, case: Case) -> None:
        self._world = world
        self._case = case
        self._headers = {"idempotency-key": new_id()}

    async def ask(self) -> httpx.Response:
        return await self._world.api.post(self._case.path, json=self._case.body, headers=self._headers)

    async def lose_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Send the first request, whose work is done and whose response is lost."""
        handle = RouteEndpoint._handle

        async def work_and_lose(endpoint: Any, *given: Any) -> Any:
            await handle(endpoint, *given)
            raise OutcomeUnknown

        with monkeypatch.context() as broken:
            broken.setattr(RouteEndpoint, "_handle", work_and_lose)
            assert (await self.ask()).status_code == 504

    def done(self) -> int:
        return self._case.count(select(self._world, self._case.query))


@pytest.fixture(autouse=True)
def _healthy(world: World) -> None:
    world.subscriber.answer = lambda _number, _request: 200


async def test_every_post_has_a_case() -> None:
    posts = {route.path for route in routes() if isinstance(route, Route) and "POST" in (route.methods or ())}
    assert posts - NOT_OBEYED == CASES.keys()


@pytest.mark.parametrize("path", CASES)
async def test_a_repetition_after_a_lost_response_tells_what_was_done_once(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    case = await CASES[path](world)
    client = Client(world, case)
    await client.lose_first(monkeypatch)
    assert client.done() == case.done
    await case.meanwhile()
    answer = await client.ask()
    assert (answer.status_code, REPLAYED in answer.headers) == (case.status, False), answer.text
    shown = answer.json()
    assert (case.shows or {}).items() <= shown.get("data", shown).items()
    assert client.done() == case.done
    again = await client.ask()
    assert (again.headers[REPLAYED], again.content) == ("true", answer.content)


@pytest.mark.parametrize("what", ["tasks", "runs"])
async def test_a_cancel_that_is_repeated_after_a_retry_cancels_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    case = await (of_cancel(world) if what == "tasks" else of_run_cancel(world))
    client = Client(world, case)
    await client.lose_first(monkeypatch)
    assert (await world.api.post(case.path.replace("/cancel", "/retry"))).status_code == 200
    answer = await client.ask()
    assert answer.status_code == 200
    assert answer.json()["data"]["status"] != "cancelled"
    assert client.done() == 1


async def test_a_repetition_does_the_work_that_was_not_done(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(world, await of_retry(world))

    async def lose(*_: Any, **__: Any) -> None:
        raise OutcomeUnknown

    with monkeypatch.context() as broken:
        broken.setattr(Tracker, "retry", lose)
        assert (await client.ask()).status_code == 504
    assert client.done() == 0
    assert (await client.ask()).status_code == 200
    assert client.done() == 1
