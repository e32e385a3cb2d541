"""One form everywhere: times, `object`, ids, errors and query names, on every path that speaks Pi's dialect.

The requests are a table of all paths. A path that is added without a line here fails the first test.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx
import pytest
import pytest_asyncio
from starlette.routing import Route

from receiver.api.dialects import NATIVE, PIAPI, Dialect
from receiver.api.passthrough import FORWARDED_GETS, FORWARDED_POSTS
from receiver.api.routes import routes
from receiver.domain.ids import new_id
from tests.fakes.resources import LONG_AGO, RUN, one_of_each
from tests.fakes.world import World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = Any
Key = tuple[str, str]

TASK = {"model": "Qubico/flux1-schnell", "task_type": "txt2img", "input": {"prompt": "a cat"}}
BODIES: Mapping[Key, Json] = {
    ("POST", "/api/v1/tasks"): {"tasks": [TASK, {"model": "x"}]},
    ("POST", "/api/v1/tasks/cancel"): {"model": "no-such-model"},
    ("POST", "/api/v1/tasks/retry"): {"all": True, "dry_run": True},
    ("POST", "/api/v1/tasks/refresh"): {"all": True, "dry_run": True},
    ("POST", "/api/v1/tasks/wait"): {"task_ids": ["{task_id}"], "mode": "all"},
    ("POST", "/api/v1/tasks/adopt"): {"provider_task_id": "no-such-task"},
    ("POST", "/api/v1/webhooks"): {"endpoint_url": "http://127.0.0.1:9/", "event_types": ["webhook.disabled"]},
    ("PATCH", "/api/v1/webhooks/{webhook_id}"): {"description": "changed"},
    ("POST", "/api/v1/webhooks/{webhook_id}/recover"): {"since": LONG_AGO},
    ("POST", "/api/v1/webhooks/{webhook_id}/replay"): {"since": LONG_AGO},
    ("POST", "/api/v1/runs"): RUN,
    ("POST", "/api/v1/keys"): {"name": "another"},
    ("POST", "/api/v1/master-keys/rotate"): {"dry_run": False},
    ("POST", "/api/v1/organizations"): {"name": "acme"},
    ("PATCH", "/api/v1/organizations/{organization_id}"): {"limits": {"webhooks": 5}},
    ("POST", "/api/v1/providers/{provider}/accounts"): {"name": "another", "credentials": {"api_key": "a-key-4Tq9Zw"}},
    ("PATCH", "/api/v1/providers/{provider}/accounts/{account}"): {"concurrency": 5},
}
WITHOUT_BODY: tuple[Key, ...] = (
    ("GET", "/api/v1/tasks"),
    ("GET", "/api/v1/tasks/{task_id}"),
    ("GET", "/api/v1/tasks/{task_id}/events"),
    ("GET", "/api/v1/tasks/{task_id}/explain"),
    ("POST", "/api/v1/tasks/{task_id}/refresh"),
    ("POST", "/api/v1/tasks/{task_id}/cancel"),
    ("POST", "/api/v1/tasks/{task_id}/retry"),
    ("GET", "/api/v1/bulk-actions"),
    ("GET", "/api/v1/bulk-actions/{bulk_action_id}"),
    ("POST", "/api/v1/bulk-actions/{bulk_action_id}/cancel"),
    ("GET", "/api/v1/events"),
    ("GET", "/api/v1/webhooks"),
    ("GET", "/api/v1/webhooks/{webhook_id}"),
    ("POST", "/api/v1/webhooks/{webhook_id}/rotate-secret"),
    ("POST", "/api/v1/webhooks/{webhook_id}/test"),
    ("GET", "/api/v1/webhooks/{webhook_id}/deliveries"),
    ("GET", "/api/v1/webhooks/{webhook_id}/replays"),
    ("GET", "/api/v1/webhooks/{webhook_id}/replays/{replay_id}"),
    ("POST", "/api/v1/webhooks/{webhook_id}/replays/{replay_id}/cancel"),
    ("GET", "/api/v1/deliveries"),
    ("GET", "/api/v1/deliveries/{delivery_id}"),
    ("GET", "/api/v1/receipts"),
    ("GET", "/api/v1/receipts/{receipt_id}"),
    ("GET", "/api/v1/inbound"),
    ("GET", "/api/v1/report"),
    ("GET", "/api/v1/deliveries/{delivery_id}/explain"),
    ("GET", "/api/v1/stats"),
    ("GET", "/api/v1/webhooks/{webhook_id}/stats"),
    ("POST", "/api/v1/deliveries/{delivery_id}/retry"),
    ("POST", "/api/v1/dashboard-links"),
    ("GET", "/api/v1/runs"),
    ("GET", "/api/v1/runs/{run_id}"),
    ("GET", "/api/v1/runs/{run_id}/events"),
    ("GET", "/api/v1/runs/{run_id}/explain"),
    ("POST", "/api/v1/runs/{run_id}/cancel"),
    ("POST", "/api/v1/runs/{run_id}/retry"),
    ("GET", "/api/v1/jobs/{job_id}"),
    ("GET", "/api/v1/keys"),
    ("GET", "/api/v1/organization"),
    ("GET", "/api/v1/providers"),
    ("GET", "/api/v1/providers/{provider}/accounts"),
    ("GET", "/api/v1/providers/{provider}/accounts/{account}"),
    ("POST", "/api/v1/providers/{provider}/accounts/{account}/check"),
    ("DELETE", "/api/v1/providers/{provider}/accounts/{account}"),
    ("GET", "/api/v1/organizations"),
    ("GET", "/api/v1/organizations/{organization_id}"),
    ("GET", "/api/v1/keys/{key_id}"),
    ("GET", "/api/v1/master-keys"),
    ("GET", "/api/v1/audit"),
    ("DELETE", "/api/v1/webhooks/{webhook_id}/replays/{replay_id}"),
    ("DELETE", "/api/v1/webhooks/{webhook_id}"),
    ("DELETE", "/api/v1/keys/{key_id}"),
)
ORDER = {method: number for number, method in enumerate(("GET", "POST", "PATCH", "DELETE"))}
ALL = sorted((*BODIES, *WITHOUT_BODY), key=lambda each: ORDER[each[0]])
GETS = [each for each in ALL if each[0] == "GET"]
LISTS = [
    ("GET", "/api/v1/bulk-actions"),
    ("GET", "/api/v1/tasks"),
    ("GET", "/api/v1/tasks/{task_id}/events"),
    ("GET", "/api/v1/events"),
    ("GET", "/api/v1/webhooks"),
    ("GET", "/api/v1/webhooks/{webhook_id}/deliveries"),
    ("GET", "/api/v1/webhooks/{webhook_id}/replays"),
    ("GET", "/api/v1/deliveries"),
    ("GET", "/api/v1/runs"),
    ("GET", "/api/v1/receipts"),
    ("GET", "/api/v1/runs/{run_id}/events"),
    ("GET", "/api/v1/keys"),
    ("GET", "/api/v1/organizations"),
    ("GET", "/api/v1/providers/{provider}/accounts"),
    ("GET", "/api/v1/audit"),
]
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
NAMES_OF_TIMES = frozenset({"timestamp", "since", "until", "time", "at"})
IN_UNIX_SECONDS = frozenset({"run", "job"})
"""Pi's own resources."""
FREE = frozenset({"input", "output", "payload", "result", "job_result", "metadata", "config", "headers", "logs"})
"""Fields whose value has the form of someone else."""
CODE = re.compile(r"[a-z]+(_[a-z]+)*")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module, with at least one of each resource."""
    async with in_process(tmp_path_factory.mktemp("world"), retention_days="0") as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ids(world: World) -> dict[str, str]:
    """The id of one resource of each kind, by the names of the parameters in paths."""
    return await one_of_each(world)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answers(world: World, ids: dict[str, str]) -> dict[Key, httpx.Response]:
    """The answers of all paths to a request that is right, reads first and removals last."""
    return {key: await ask(world, key, ids) for key in ALL}


async def ask(world: World, key: Key, ids: Mapping[str, str], **query: str) -> httpx.Response:
    method, path = key
    body = json.loads(json.dumps(BODIES.get(key)).replace("{task_id}", ids["task_id"]))
    return await world.api.request(method, path.format(**ids), params=query, **({} if body is None else {"json": body}))


def served(dialect: Dialect) -> set[Key]:
    """Return the methods and paths that the service serves in a dialect."""
    found = set()
    for route in routes():
        assert isinstance(route, Route)
        own = getattr(getattr(route.endpoint, "__self__", None), "dialect", None)
        if own is dialect:
            found |= {(method, route.path) for method in route.methods or () if method != "HEAD"}
    return found


def objects(value: Json) -> Iterator[dict[str, Json]]:
    """Return every JSON object within a value that names its kind."""
    if isinstance(value, dict):
        if "object" in value:
            yield value
        for name, member in value.items():
            if name not in FREE:
                yield from objects(member)
    elif isinstance(value, list):
        for member in value:
            yield from objects(member)


def times(value: Json, *, unix: bool = False) -> Iterator[tuple[str, Json, bool]]:
    """Return every time within a value: its name, the time, and whether it is to be in unix seconds."""
    if isinstance(value, dict):
        unix = value["object"] in IN_UNIX_SECONDS if "object" in value else unix
        for name, member in value.items():
            if name.endswith("_at") or name in NAMES_OF_TIMES:
                yield name, member, unix
            elif name not in FREE:
                yield from times(member, unix=unix and name != "diagnostics")
    elif isinstance(value, list):
        for member in value:
            yield from times(member, unix=unix)


def check_times(value: Json) -> int:
    found = list(times(value))
    for name, moment, unix in found:
        if moment is not None:
            right = isinstance(moment, int) if unix else isinstance(moment, str) and ISO.fullmatch(moment)
            assert right, (name, moment)
    return len(found)


def error_of(answer: httpx.Response) -> dict[str, Json]:
    body = answer.json()
    assert body.keys() == {"error"}, body
    error = body["error"]
    assert {"type", "code", "message", "request_id"} <= error.keys()
    assert CODE.fullmatch(error["code"]), error
    assert error["request_id"] == answer.headers["x-request-id"]
    assert not re.search(r"(\b[\w.\[\]]+): \1\b", error["message"]), error
    return dict(error)


async def test_every_path_is_in_the_table() -> None:
    passed_on = {("POST", path) for path in FORWARDED_POSTS} | {("GET", path) for path in FORWARDED_GETS}
    assert served(NATIVE) - passed_on == set(ALL)
    assert len(ALL) == len(set(ALL))


@pytest.mark.parametrize("key", ALL, ids=" ".join)
async def test_an_answer_names_its_kind_in_the_envelope_and_in_the_data(
    answers: dict[Key, httpx.Response], key: Key
) -> None:
    answer = answers[key]
    if answer.status_code >= 400:
        assert key[0] in ("POST", "DELETE")
        assert error_of(answer)["code"] in ("conflict", "task_not_found")
        return
    body = answer.json()
    assert body.keys() == {"id", "object", "status", "created_at", "data"}
    assert isinstance(body["created_at"], int)
    assert body["object"] == body["data"]["object"]
    if body["object"] == "list" and key != ("POST", "/api/v1/tasks"):
        assert body["data"].keys() == {"object", "data", "has_more", "next_cursor"}
        assert all("object" in item for item in body["data"]["data"])


@pytest.mark.parametrize("key", GETS, ids=" ".join)
async def test_reads_succeed_and_lists_are_not_empty(answers: dict[Key, httpx.Response], key: Key) -> None:
    assert answers[key].status_code == 200, answers[key].text
    data = answers[key].json()["data"]
    if data["object"] == "list":
        assert data["data"]


@pytest.mark.parametrize("key", ALL, ids=" ".join)
async def test_a_resource_has_its_id_and_the_time_of_its_creation(answers: dict[Key, httpx.Response], key: Key) -> None:
    for each in objects(answers[key].json().get("data")):
        kind = each["object"]
        if kind not in (
            "list",
            "test",
            "report",
            "stats",
            "explanation",
            "wait",
            "dry_run",
            "master_keys",
            "master_key_rotation",
            "dashboard_link",
            "inbound",
            "provider",
            "account_check",
        ):
            own = {"task": "task_id"}.get(kind, "run_id" if key == ("POST", "/api/v1/runs") else "id")
            assert own in each
            made = "received_at" if kind == "receipt" else "created_at"
            assert made in each or each.get("deleted") or own == "run_id"
        if "attempts" in each:
            assert isinstance(each["attempts"], list)
            assert all(isinstance(attempt["attempt"], int) for attempt in each["attempts"])
        assert isinstance(each.get("attempt_count", 0), int)


@pytest.mark.parametrize("key", ALL, ids=" ".join)
async def test_times_are_iso_8601_in_utc_with_microseconds(answers: dict[Key, httpx.Response], key: Key) -> None:
    check_times(answers[key].json().get("data"))


async def test_the_times_of_a_whole_history_have_one_form(world: World, ids: dict[str, str]) -> None:
    for path in ("/api/v1/events", f"/api/v1/tasks/{ids['task_id']}/events"):
        page = (await world.api.get(path, params={"limit": 200})).json()["data"]["data"]
        assert check_times(page) >= 5 * len(page)
    job = await world.api.get(f"/api/v1/jobs/{ids['job_id']}", params={"include": "diagnostics"})
    assert check_times(job.json()["data"]) > 20


async def test_an_event_is_the_same_wherever_it_is_read(world: World, ids: dict[str, str]) -> None:
    history = (await world.api.get(f"/api/v1/tasks/{ids['task_id']}/events")).json()["data"]["data"]
    listed = (await world.api.get("/api/v1/events", params={"task_id": ids["task_id"]})).json()["data"]["data"]
    job = (await world.api.get(f"/api/v1/jobs/{ids['job_id']}", params={"include": "diagnostics"})).json()["data"]
    assert history == listed == job["diagnostics"]["events"][::-1]
    for event in history:
        assert (event["object"], event["task_id"], event["run_id"]) == ("event", ids["task_id"], None)
        assert event["timestamp"] == event["created_at"]
        assert event["data"]["object"] == "task"
    assert history[0]["data"] == {
        name: value for name, value in (await world.task(ids["task_id"])).items() if name not in ("attempts", "account")
    }


async def test_a_delivery_s_body_is_made_of_its_event(world: World) -> None:
    await world.webhook(event_types=["task.created", "task.submitted", "task.updated", "task.completed"])
    task_id = await world.created()
    await world.ended(task_id)
    listed = (await world.api.get("/api/v1/events", params={"task_id": task_id})).json()["data"]["data"]
    events = {event["id"]: event for event in listed}
    await world.subscriber.until(lambda _: len(world.subscriber.of(task_id)) >= len(events))
    for each in world.subscriber.of(task_id):
        event = events[each.event_id]
        assert each.json.keys() == {"type", "timestamp", "data"}
        assert [each.json[name] for name in ("type", "timestamp")] == [event[name] for name in ("type", "timestamp")]
        assert each.json["data"] == event["data"]


@pytest.mark.parametrize("key", ALL, ids=" ".join)
async def test_an_unknown_query_name_is_refused(world: World, ids: dict[str, str], key: Key) -> None:
    error = error_of(await ask(world, key, ids, colour="red"))
    assert (error["code"], error["param"]) == ("invalid_query_params", "colour")
    assert "'colour' is not a query parameter of this path" in error["message"]


@pytest.mark.parametrize("key", LISTS, ids=" ".join)
async def test_every_list_has_pages(world: World, answers: dict[Key, httpx.Response], key: Key) -> None:
    whole, url = answers[key].json()["data"], str(answers[key].url)
    assert whole["object"] == "list"
    for given in ({"limit": "0"}, {"limit": "201"}, {"cursor": "nonsense"}):
        refused = error_of(await world.api.get(url, params=given))
        assert (refused["code"], [refused["param"]]) in (
            ("invalid_query_params", list(given)),
            ("webhook_not_found", ["webhook_id"]),
        )


@pytest.mark.parametrize("key", [each for each in ALL if "{" in each[1]], ids=" ".join)
async def test_what_does_not_exist_has_a_code_of_its_kind(world: World, ids: dict[str, str], key: Key) -> None:
    name = re.findall(r"{(\w+)}", key[1])[-1]
    kind = name.removesuffix("_id")
    answer = await ask(world, key, {**ids, name: new_id()})
    if answer.json().get("error", {}).get("code") == "webhook_not_found":
        assert kind in ("webhook", "replay")  # the webhook was removed by an earlier test
        return
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (404, f"{kind}_not_found", name)


async def test_not_found_alone_is_for_paths(world: World) -> None:
    answer = await world.api.get("/api/v1/nothing")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/api/v1/task/{task_id}", "/account/active_tasks", "/api/open/tasks/histories"])
async def test_piapi_s_own_paths_ignore_what_only_piapi_knows(world: World, ids: dict[str, str], path: str) -> None:
    answer = await world.api.get(path.format(**ids), params={"colour": "red"})
    assert (answer.status_code, answer.json()["code"]) == (200, 200)


async def test_piapi_s_dialect_has_paths() -> None:
    assert ("GET", "/api/v1/task/{task_id}") in served(PIAPI)


@pytest.mark.parametrize("path", ["/api/v1/task", "/api/v1/tasks", "/api/v1/runs", "/api/v1/webhooks", "/api/v1/keys"])
async def test_an_error_names_a_field_once(world: World, path: str) -> None:
    answer = await world.api.post(path, json={"tasks": [{}], "colour": "red"})
    texts = [answer.text, *re.findall(r'"message":"([^"]*)"', answer.text)]
    assert not [text for text in texts if re.search(r"(\b[\w.\[\]]+): \1\b", text)]
