"""Organizations: only the operator makes them, what each may use is limited, and nothing of one is another's."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from starlette.routing import Route
from typer.testing import CliRunner, Result

from receiver.api.endpoint import RouteEndpoint
from receiver.api.routes import routes
from receiver.domain.ids import new_id
from receiver.errors import OutcomeUnknown
from tests.fakes.command_line import app
from tests.fakes.pipeline import WAITING
from tests.fakes.reader import EVENT_STREAM
from tests.fakes.resources import LONG_AGO, one_of_each
from tests.fakes.rows import change, select
from tests.fakes.world import API_KEY, World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

TASK = {"model": "flux", "task_type": "txt2img", "input": {"prompt": "a cat", "sandbox": dict(WAITING)}}
RUN = {"steps": [{"id": name, "action": "flux:txt2img", "input": {"prompt": "a cat"}} for name in ("a", "b", "c")]}
WEBHOOK = {"endpoint_url": "http://127.0.0.1:9/", "event_types": ["webhook.disabled"]}
COUNT = "SELECT count(*) AS count FROM task t JOIN organization o ON o.id = t.organization_id WHERE o.uid = ?"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module: each has organizations of its own."""
    folder = tmp_path_factory.mktemp("world")
    async with in_process(folder, retention_days="0", organization_limits="running_replays=7") as world:
        yield world


@dataclass(frozen=True)
class Tenant:
    """An organization with its admin key."""

    world: World
    id: str
    key: dict[str, str]

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        given = {} if body is None else {"json": body}
        return await self.world.api.request(method, path, headers={**self.key, **headers}, **given)

    async def own(self) -> dict[str, Any]:
        return dict((await self.ask("GET", "/api/v1/organization")).json()["data"])

    async def limit(self, **limits: Any) -> None:
        """Set limits, as the operator does."""
        answer = await self.world.api.patch(f"/api/v1/organizations/{self.id}", json={"limits": limits})
        assert answer.status_code == 200, answer.text

    def tasks(self) -> int:
        return int(select(self.world, COUNT, self.id)[0]["count"])


async def tenant(world: World, **limits: Any) -> Tenant:
    answer = await world.api.post("/api/v1/organizations", json={"name": new_id()[:13], "limits": limits})
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    return Tenant(world, data["id"], {"x-api-key": data["key"]})


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """Return the status, the code and the param of a refusal; a 429 must say when to come again."""
    if answer.status_code == 429:
        assert int(answer.headers["retry-after"]) > 0
    error = answer.json()["error"]
    return answer.status_code, error["code"], error.get("param", "")


def rate_limited(name: str) -> tuple[int, str, str]:
    return 429, "organization_rate_limited", name


def reached(name: str) -> tuple[int, str, str]:
    return 409, "organization_limit_reached", name


async def test_the_operator_makes_an_organization_whose_key_works(world: World) -> None:
    made = (await world.api.post("/api/v1/organizations", json={"name": " acme ", "limits": {"webhooks": 5}})).json()[
        "data"
    ]
    assert (made["name"], made["set_limits"], made["owns_provider_account"]) == ("acme", {"webhooks": 5}, False)
    acme = Tenant(world, made["id"], {"x-api-key": made["key"]})
    own = await acme.own()
    assert (own["id"], own["limits"]["webhooks"], own["limits"]["running_replays"]) == (made["id"], 5, 7)
    assert own["used"]["webhooks"] == own["used"]["open_tasks"] == own["used"]["deliveries_in_flight"] == 0
    keys = (await acme.ask("GET", "/api/v1/keys")).json()["data"]["data"]
    assert [(key["id"], key["scope"]) for key in keys] == [(made["key_id"], "admin")]
    listed = (await world.api.get("/api/v1/organizations", params={"limit": 200})).json()["data"]["data"]
    assert [each["name"] for each in listed if each["name"] in ("acme", "default")] == ["acme", "default"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "  "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": new_id()}, "name"),
        ({"name": "n", "limits": {"dreams": 1}}, "limits"),
        ({"name": "n", "limits": {"webhooks": -1}}, "limits"),
        ({"name": "n", "limits": {"webhooks": 1.5}}, "limits"),
        ({"name": "n", "colour": "red"}, "colour"),
    ],
)
async def test_a_wrong_field_is_refused_by_name(world: World, body: Any, param: str) -> None:
    answer = await world.api.post("/api/v1/organizations", json=body)
    assert refusal(answer) == (400, "invalid_request_body", param)


async def test_a_name_is_taken_once_also_at_the_same_time(world: World) -> None:
    body = {"name": new_id()[:13]}
    answers = await asyncio.gather(*(world.api.post("/api/v1/organizations", json=body) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]


async def test_a_tenant_s_admin_sees_no_other_organization_and_changes_no_limit(world: World) -> None:
    ours, theirs = await tenant(world), await tenant(world)
    for method, path, body in (
        ("GET", "/api/v1/organizations", None),
        ("POST", "/api/v1/organizations", {"name": "mine"}),
        ("GET", f"/api/v1/organizations/{theirs.id}", None),
        ("GET", f"/api/v1/organizations/{ours.id}", None),
        ("PATCH", f"/api/v1/organizations/{ours.id}", {"limits": {"webhooks": "unlimited"}}),
    ):
        answer = await ours.ask(method, path, body)
        assert refusal(answer)[:2] == (403, "permission_denied")
        assert "admin key of the organization 'default'" in answer.json()["error"]["message"]
    read_key = await world.api.post("/api/v1/keys", json={"name": "reader", "scope": "write"})
    operator = {"x-api-key": read_key.json()["data"]["key"]}
    assert (await world.api.get("/api/v1/organizations", headers=operator)).status_code == 403
    assert (await world.api.get("/api/v1/organization", headers=operator)).json()["data"]["name"] == "default"


async def test_no_more_webhooks_than_the_limit_also_at_the_same_time(world: World) -> None:
    ours = await tenant(world, webhooks=2)
    answers = await asyncio.gather(*(ours.ask("POST", "/api/v1/webhooks", WEBHOOK) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [409] * 4
    assert {refusal(answer) for answer in answers if answer.status_code == 409} == {reached("webhooks")}
    made = next(answer.json()["data"]["id"] for answer in answers if answer.status_code == 200)
    key = {"idempotency-key": new_id()}
    assert refusal(await ours.ask("POST", "/api/v1/webhooks", WEBHOOK, **key)) == reached("webhooks")
    assert (await ours.ask("DELETE", f"/api/v1/webhooks/{made}")).status_code == 200
    assert (await ours.ask("POST", "/api/v1/webhooks", WEBHOOK, **key)).status_code == 200  # the refusal is not kept
    assert (await ours.own())["used"]["webhooks"] == 2


async def test_no_more_replays_run_than_the_limit(world: World) -> None:
    ours = await tenant(world, running_replays=1)
    webhook = (await ours.ask("POST", "/api/v1/webhooks", WEBHOOK)).json()["data"]["id"]
    await ours.limit(running_replays=0)
    for action in ("replay", "recover"):
        answer = await ours.ask("POST", f"/api/v1/webhooks/{webhook}/{action}", {"since": LONG_AGO})
        assert refusal(answer) == reached("running_replays")
    assert (await ours.ask("GET", f"/api/v1/webhooks/{webhook}/replays")).json()["data"]["data"] == []
    await ours.limit(running_replays=1)
    answer = await ours.ask("POST", f"/api/v1/webhooks/{webhook}/replay", {"since": LONG_AGO})
    assert answer.status_code == 202


async def test_open_tasks_are_limited_in_both_dialects_and_for_bulks_and_runs_as_a_whole(world: World) -> None:
    ours = await tenant(world, open_tasks=2)
    assert refusal(await ours.ask("POST", "/api/v1/tasks", {"tasks": [TASK] * 3})) == rate_limited("open_tasks")
    assert refusal(await ours.ask("POST", "/api/v1/runs", RUN)) == rate_limited("open_tasks")
    assert ours.tasks() == 0
    key = {"idempotency-key": new_id()}
    accepted = await ours.ask("POST", "/api/v1/task", TASK, **key)
    assert (await ours.ask("POST", "/api/v1/tasks", {"tasks": [TASK, {"model": "x"}]})).status_code == 202
    refused = await ours.ask("POST", "/api/v1/task", TASK)
    assert (refused.status_code, refused.json()["data"], refused.json()["code"]) == (429, None, 429)
    assert refused.json()["message"].startswith("open_tasks: the organization may have 2 tasks that have not ended")
    assert int(refused.headers["retry-after"]) > 0
    again = await ours.ask("POST", "/api/v1/task", TASK, **key)
    assert (again.content, again.headers["x-idempotency-replayed"]) == (accepted.content, "true")
    assert ours.tasks() == (await ours.own())["used"]["open_tasks"] == 2


async def test_a_repetition_of_an_accepted_request_whose_answer_was_lost_is_not_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = RouteEndpoint._handle

    async def work_and_lose(endpoint: Any, *given: Any) -> Any:
        await handle(endpoint, *given)
        raise OutcomeUnknown

    ours = await tenant(world, open_tasks=5)
    requests = [
        ("/api/v1/task", TASK),
        ("/api/v1/tasks", {"tasks": [TASK] * 3}),
        ("/api/v1/runs", {"steps": RUN["steps"][:1]}),
    ]
    keys = [{"idempotency-key": new_id()} for _ in requests]
    with monkeypatch.context() as broken:
        broken.setattr(RouteEndpoint, "_handle", work_and_lose)
        for (path, body), key in zip(requests, keys, strict=True):
            assert (await ours.ask("POST", path, body, **key)).status_code == 504
    await ours.limit(open_tasks=0, creates_per_second=0, stored_bytes=0)
    for (path, body), key in zip(requests, keys, strict=True):
        assert (await ours.ask("POST", path, body, **key)).status_code in (200, 202)
        assert (await ours.ask("POST", path, body)).status_code == 409
    assert ours.tasks() == 5


async def test_when_tasks_have_ended_others_may_be_created_and_a_retry_opens_one_again(world: World) -> None:
    ours = await tenant(world, open_tasks=1)
    task_id = (await ours.ask("POST", "/api/v1/task", TASK)).json()["data"]["task_id"]
    assert (await ours.ask("POST", "/api/v1/task", TASK)).status_code == 429
    assert (await ours.ask("DELETE", f"/api/v1/task/{task_id}")).status_code == 200
    async with asyncio.timeout(20):
        while (await ours.ask("POST", "/api/v1/task", TASK)).status_code == 429:  # until the next count
            pass
    answer = await ours.ask("POST", f"/api/v1/tasks/{task_id}/retry")
    assert refusal(answer) == rate_limited("open_tasks")


async def test_creates_a_second_are_limited_and_a_refused_bulk_stores_nothing(world: World) -> None:
    ours = await tenant(world, creates_per_second=0.3)  # ten seconds' worth is three
    assert (await ours.ask("POST", "/api/v1/tasks", {"tasks": [TASK] * 2})).status_code == 202
    assert refusal(await ours.ask("POST", "/api/v1/tasks", {"tasks": [TASK] * 3})) == rate_limited("creates_per_second")
    assert refusal(await ours.ask("POST", "/api/v1/runs", RUN)) == rate_limited("creates_per_second")
    assert ours.tasks() == 2
    assert (await ours.own())["used"]["creates_per_second"] > 0
    other = await tenant(world)
    assert (await other.ask("POST", "/api/v1/tasks", {"tasks": [TASK] * 3})).status_code == 202


async def test_bytes_are_limited(world: World) -> None:
    ours = await tenant(world, stored_bytes=2000)
    large = {**TASK, "input": {"prompt": "x" * 1500, "sandbox": dict(WAITING)}}
    assert (await ours.ask("POST", "/api/v1/task", large)).status_code == 200
    refused = await ours.ask("POST", "/api/v1/task", large)
    assert (refused.status_code, refused.json()["message"].partition(":")[0]) == (409, "stored_bytes")
    assert refusal(await ours.ask("POST", "/api/v1/tasks", {"tasks": [large]})) == reached("stored_bytes")
    assert ours.tasks() == 1
    assert 1500 < (await ours.own())["used"]["stored_bytes"] < 2000


async def test_streams_and_long_polls_are_limited_together_and_are_free_again_when_they_end(world: World) -> None:
    ours = await tenant(world, streams=1)
    task_id = (await ours.ask("POST", "/api/v1/task", TASK)).json()["data"]["task_id"]
    poll = f"/api/v1/tasks/{task_id}?wait_for_completion=true&timeout_seconds=1"
    async with world.api.stream("GET", "/api/v1/events", headers={**ours.key, **EVENT_STREAM}) as stream:
        assert stream.status_code == 200
        assert refusal(await ours.ask("GET", poll)) == rate_limited("streams")
        assert refusal(await ours.ask("GET", "/api/v1/events", **EVENT_STREAM)) == rate_limited("streams")
        assert refusal(await ours.ask("GET", poll.replace("tasks", "jobs"))) == rate_limited("streams")
        assert (await ours.own())["used"]["streams"] == 1
        assert (await ours.ask("GET", f"/api/v1/tasks/{task_id}")).status_code == 200
    async with asyncio.timeout(20):
        while (await ours.own())["used"]["streams"]:  # until the service has noticed that its client left
            pass
    assert (await ours.ask("GET", poll)).status_code == 200
    unknown = await ours.ask("GET", f"/api/v1/events?task_id={new_id()}", **EVENT_STREAM)
    assert (unknown.status_code, (await ours.own())["used"]["streams"]) == (404, 0)


async def test_the_provider_account_is_for_its_owner_alone(world: World) -> None:
    ours = await tenant(world)
    elsewhere = (await world.provider.post("/api/v1/task", json=TASK)).json()["data"]["task_id"]
    adopt = {"provider_task_id": elsewhere}
    refused = await ours.ask("GET", "/account/info")
    assert (refused.status_code, refused.json()["code"], refused.json()["data"]) == (403, 403, None)
    assert refusal(await ours.ask("POST", "/api/v1/tasks/adopt", adopt))[:2] == (403, "permission_denied")
    assert (await ours.ask("GET", f"/api/v1/tasks/{elsewhere}")).status_code == 404
    assert select(world, "SELECT id FROM task WHERE provider_task_id = ?", elsewhere) == []
    made = (await ours.ask("POST", "/api/v1/task", TASK)).json()["data"]
    own = {"provider_task_id": made["meta"]["provider_task_id"]}
    assert (await ours.ask("POST", "/api/v1/tasks/adopt", own)).json()["data"]["task_id"] == made["task_id"]
    answer = await world.api.patch(f"/api/v1/organizations/{ours.id}", json={"owns_provider_account": True})
    assert answer.json()["data"]["owns_provider_account"] is True
    assert (await ours.ask("GET", "/account/info")).status_code == 200
    assert (await ours.ask("POST", "/api/v1/tasks/adopt", adopt)).status_code == 200
    assert (await world.api.get("/account/info")).status_code == 200


async def test_a_change_names_something_and_null_lets_a_limit_have_its_default_again(world: World) -> None:
    ours = await tenant(world, webhooks=5, streams="unlimited")
    path = f"/api/v1/organizations/{ours.id}"
    assert refusal(await world.api.patch(path, json={}))[:2] == (400, "no_changes")
    changed = (await world.api.patch(path, json={"limits": {"webhooks": None}})).json()["data"]
    assert (changed["limits"]["webhooks"], changed["limits"]["streams"]) == (1000, None)
    assert changed["set_limits"] == {"streams": "unlimited"}


async def ringback(world: World, *arguments: str) -> Result:
    """Run a command of `ringback organization` in a thread, with the operator's key."""
    environment = {"RINGBACK_URL": world.base, "RINGBACK_API_KEY": API_KEY, "NO_PROXY": "127.0.0.1"}
    return await asyncio.to_thread(CliRunner(env=environment).invoke, app, ["organization", *arguments])


@pytest.mark.postgresql_only("SQLite has one process, and no other changes the limits")
async def test_a_limit_that_another_process_set_holds_here_within_seconds(world: World) -> None:
    ours = await tenant(world)
    change(world, "UPDATE organization SET limits = CAST(? AS jsonb) WHERE uid = ?", '{"webhooks": 0}', ours.id)
    async with asyncio.timeout(20):
        while (await ours.own())["limits"]["webhooks"] != 0:
            pass
    assert refusal(await ours.ask("POST", "/api/v1/webhooks", WEBHOOK)) == reached("webhooks")


async def test_the_command_line_makes_lists_and_limits_organizations(world: World) -> None:
    name = new_id()[:13]
    created = await ringback(world, "create", name, "--limit", "webhooks=3", "--key-name", "boss", "--json")
    made = json.loads(created.stdout)
    assert (made["name"], made["set_limits"]) == (name, {"webhooks": 3})
    theirs = {"x-api-key": made["key"]}
    assert (await world.api.get("/api/v1/organization", headers=theirs)).json()["data"]["id"] == made["id"]
    assert re.search(rf"^{made['id']} +{name} +no +webhooks=3 ", (await ringback(world, "list")).stdout, re.MULTILINE)
    given = ("--set", "streams=unlimited", "--unset", "webhooks", "--provider-account", "--json")
    changed = json.loads((await ringback(world, "limits", name, *given)).stdout)
    assert (changed["set_limits"], changed["owns_provider_account"]) == ({"streams": "unlimited"}, True)
    shown = await ringback(world, "limits", made["id"])
    assert shown.exit_code == 0
    assert re.search(r"^streams +unlimited +0 +yes *$", shown.stdout, re.MULTILINE), shown.stdout
    assert re.search(r"^webhooks +1000 +0 +no *$", shown.stdout, re.MULTILINE), shown.stdout
    unknown = await ringback(world, "limits", "no-such-name")
    assert (unknown.exit_code, "there is no organization 'no-such-name'" in unknown.stderr) == (2, True)


async def test_no_route_shows_or_changes_what_belongs_to_another_organization(world: World) -> None:
    """Ask every path of an object for one of another organization, with an admin key; lists must be empty."""
    theirs = await tenant(world)
    ids = await one_of_each(world) | {"organization_id": theirs.id}
    before = snapshot(world)
    asked = 0
    for route in routes():
        if not isinstance(route, Route) or route.path.startswith("/hooks") or "{" not in route.path:
            continue
        if route.path.endswith("/accounts"):  # of a provider, which is everyone's
            continue
        if "{owner}" in route.path:  # of a model, which is a provider's
            continue
        for method in (route.methods or set()) - {"HEAD"}:
            body = {"since": LONG_AGO} if route.path.endswith(("/replay", "/recover")) else {"description": "mine"}
            given = body if method in ("POST", "PATCH") else None
            answer = await theirs.ask(method, route.path.format(**ids), given)
            expected = 403 if "organization_id" in route.path else 404
            assert answer.status_code == expected, (method, route.path, answer.text)
            asked += 1
    assert asked >= 25
    for path in ("tasks", "events", "webhooks", "deliveries", "runs", "receipts", "bulk-actions"):
        assert (await theirs.ask("GET", f"/api/v1/{path}")).json()["data"]["data"] == [], path
    for query in ("task_id", "run_id"):
        assert (await theirs.ask("GET", f"/api/v1/events?{query}={ids[query]}")).status_code == 404
    assert (await theirs.ask("GET", "/api/open/tasks/histories")).json()["data"]["total"] == 0
    assert snapshot(world) == before


def snapshot(world: World) -> list[list[dict[str, Any]]]:
    """Return what a request could have changed of the objects that are asked for."""
    return [
        select(world, "SELECT uid, deleted_at, description, secret, is_active FROM subscription ORDER BY id"),
        select(world, "SELECT uid, revoked_at FROM api_key ORDER BY id"),
        select(world, "SELECT uid FROM replay ORDER BY id"),
        select(world, "SELECT uid, limits FROM organization ORDER BY id"),
        select(world, "SELECT uid, updated_at, removed_at FROM provider_account ORDER BY id"),
    ]
