"""`/api/v1/runs` as HTTP: error codes, lists, and access by organization."""

import copy
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from receiver.domain.ids import new_id
from tests.fakes.pipeline import (
    FAILS,
    HELD,
    ask,
    begin,
    change,
    ended,
    events_of,
    made,
    push,
    step,
    until_steps,
    world_with_actions,
)
from tests.fakes.rows import change as write
from tests.fakes.rows import select
from tests.fakes.world import World

OTHER_ORGANIZATION = (
    "INSERT INTO organization (id, uid, name, created_at) SELECT 2, ?, 'other', created_at FROM organization"
)
FORGET_ANSWERS = "UPDATE idempotency_key SET status = NULL, answer = NULL, owner = ?, lease_until = created_at"
"""As if another process had died after the work and before its response."""
MINE = {"metadata[mine]": "1"}
A = {"id": "a", "action": "campaigns.generate"}
B = {"id": "b", "action": "campaigns.generate", "depends_on": ["a"]}
DAG, BODY, QUERY = "invalid_run_dag", "invalid_request_body", "invalid_query_params"


def with_map(reference: str, *depends_on: str) -> dict[str, Any]:
    return {"id": "b", "action": "campaigns.generate", "depends_on": depends_on, "input_map": {"brand": reference}}


BAD_GRAPHS: dict[str, tuple[list[dict[str, Any]], str, str, str]] = {
    "duplicate_step_id": ([A, A], DAG, "a", "steps[1].id"),
    "unknown_dependency": ([A, {**B, "depends_on": ["z"]}], DAG, "b", "steps[1].depends_on"),
    "self_dependency": ([{**A, "depends_on": ["a"]}], DAG, "a", "steps[0].depends_on"),
    "dependency_cycle": ([{**A, "depends_on": ["b"]}, B], DAG, "a", "steps[0].depends_on"),
    "invalid_reference": ([A, with_map("$steps.a.results", "a")], DAG, "b", "steps[1].input_map.brand"),
    "unknown_reference": ([A, with_map("$steps.z.result", "a")], DAG, "b", "steps[1].input_map.brand"),
    "reference_not_ancestor": ([A, with_map("$steps.a.result.x")], DAG, "b", "steps[1].input_map.brand"),
    "invalid_step_id": ([{**A, "id": "a b"}], BODY, "a b", "steps[0].id"),
    "unknown_action": ([{**A, "action": "campaign.generate"}], BODY, "a", "steps[0].action"),
}
"""For each fault: steps that have it, the code of the error, and its path."""
BAD_BODIES: dict[str, Any] = {
    "steps": {},
    "steps.0.action": {"steps": [{"id": "a"}]},
    "steps.0.id": {"steps": [{**A, "id": 7}]},
    "steps.0.input": {"steps": [{**A, "input": []}]},
    "steps.0.input_map.x": {"steps": [{**A, "input_map": {"x": 7}}]},
    "steps.0.depends_on": {"steps": [{**A, "depends_on": "a"}]},
    "steps.0.on_failure": {"steps": [{**A, "on_failure": "ignore"}]},
    "steps.0.retry.max_attempts": {"steps": [{**A, "retry": {"max_attempts": 6}}]},
    "steps.0.retry.backoff_seconds": {"steps": [{**A, "retry": {"backoff_seconds": -1}}]},
    "steps.0.dependson": {"steps": [{**A, "dependson": []}]},
    "metadata": {"steps": [A], "metadata": {"words": "x" * 16_384}},
    "webhook": {"steps": [A], "webhook": {}},
}
"""By the field that is wrong."""


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module: each test looks only at its own runs."""
    async with world_with_actions(tmp_path_factory.mktemp("world")) as world:
        yield world


def error_of(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error


async def post(world: World, body: Any) -> httpx.Response:
    return await world.api.post("/api/v1/runs", json=body)


async def test_every_bad_graph_is_refused_by_its_name_with_the_step_s_id(world: World) -> None:
    before = select(world, "SELECT count(*) AS count FROM run")
    for name, (steps, code, step_id, param) in BAD_GRAPHS.items():
        error = error_of(await ask(world, *steps))
        assert error["code"] == code, name
        (issue,) = error["issues"]
        assert (issue["code"], issue["step_id"], issue["param"]) == (name, step_id, param)
        assert issue["message"] in error["message"]
    assert select(world, "SELECT count(*) AS count FROM run") == before


async def test_all_faults_are_named_at_once(world: World) -> None:
    error = error_of(await ask(world, {**A, "id": "x" * 65, "action": "nothing"}, {**B, "depends_on": ["a", "b"]}))
    assert error["code"] == DAG
    found = ["invalid_step_id", "unknown_dependency", "self_dependency", "unknown_action"]
    assert [issue["code"] for issue in error["issues"]] == found
    assert "3 more" in error["message"]


async def test_a_run_has_1_to_10_steps(world: World) -> None:
    for count in (0, 11, 10_000):
        error = error_of(await ask(world, *([A] * count)))
        (issue,) = error["issues"]
        assert (error["code"], issue["code"], issue["param"]) == (BODY, "invalid_step_count", "steps")
        assert str(count) in issue["message"]
    assert (await ask(world, *({**A, "id": f"a{number}"} for number in range(10)))).status_code == 202


async def test_the_error_for_an_unknown_action_has_the_most_similar_names(world: World) -> None:
    error = error_of(await ask(world, {**A, "action": "campaigns.genrate"}))
    assert "use campaigns.generate" in error["issues"][0]["message"]


async def test_a_body_of_the_wrong_types_is_refused_by_its_field(world: World) -> None:
    for field, body in BAD_BODIES.items():
        error = error_of(await post(world, body))
        assert (error["code"], error["param"]) == (BODY, field)
    assert error_of(await post(world, [A]))["code"] == BODY
    assert error_of(await world.api.post("/api/v1/runs", content=b"{"))["code"] == "invalid_json_body"


async def test_what_is_too_large_is_refused(world: World) -> None:
    error = error_of(await ask(world, {**A, "input": {"prompt": "x" * (16 << 20)}}), 413)
    assert error["code"] == "body_too_large"
    deep: Any = {}
    for _ in range(200):
        deep = {"deeper": deep}
    assert "levels deep" in error_of(await ask(world, {**A, "input": deep}))["message"]
    crowd = {f"name{number}": "$run.metadata" for number in range(101)}
    assert error_of(await ask(world, {**A, "input_map": crowd}))["param"] == "steps.0.input_map"


async def test_only_a_run_of_the_caller_s_organization_is_found(world: World) -> None:
    run_id = await begin(world, step("a"))
    await ended(world, run_id)
    calls = {"": "GET", "/cancel": "POST", "/retry": "POST"}
    for path, method in calls.items():
        error = error_of(await world.api.request(method, f"/api/v1/runs/17{path}"))
        assert (error["code"], error["param"]) == ("invalid_run_id", "run_id")
        error = error_of(await world.api.request(method, f"/api/v1/runs/{new_id()}{path}"), 404)
        assert (error["code"], error["param"]) == ("run_not_found", "run_id")
    assert (await world.api.get(f"/api/v1/runs/{run_id.upper()}")).status_code == 200
    write(world, OTHER_ORGANIZATION, new_id())
    write(world, "UPDATE run SET organization_id = 2 WHERE uid = ?", run_id)
    for path, method in calls.items():
        assert error_of(await world.api.request(method, f"/api/v1/runs/{run_id}{path}"), 404)["code"] == "run_not_found"
    assert run_id not in (await world.api.get("/api/v1/runs")).text
    for path in ("events", "tasks"):
        error = error_of(await world.api.get(f"/api/v1/{path}", params={"run_id": run_id}), 404)
        assert (error["code"], error["param"]) == ("run_not_found", "run_id")


async def test_an_invalid_query_parameter_is_refused_by_its_name(world: World) -> None:
    run_id = await begin(world, step("a"))
    for seconds in ("0", "31", "soon", "-1"):
        answer = await world.api.get(f"/api/v1/runs/{run_id}", params={"timeout_seconds": seconds})
        assert (error_of(answer)["code"], error_of(answer)["param"]) == (QUERY, "timeout_seconds")
    for query in ("status=done", "limit=201", "cursor=x", "colour=red"):
        answer = await world.api.get(f"/api/v1/runs?{query}")
        assert (error_of(answer)["code"], error_of(answer)["param"]) == (QUERY, query.partition("=")[0])
    assert error_of(await world.api.get("/api/v1/tasks?run_id=17"))["param"] == "run_id"


async def test_runs_are_listed_newest_first_by_status_and_metadata_and_page_by_page(world: World) -> None:
    held = await begin(world, step("a", sandbox=HELD), metadata={"mine": 1, "order": 1, "paid": True})
    failed = await begin(world, step("a", sandbox=FAILS), metadata={"mine": 1, "order": "2"})
    done = await begin(world, step("a"), step("b", "a"), metadata={"mine": 1, "order": 1})
    await ended(world, failed)
    whole = await ended(world, done)

    async def listed(**query: Any) -> list[str]:
        answer = await world.api.get("/api/v1/runs", params={**MINE, **query})
        assert answer.status_code == 200, answer.text
        return [run["id"] for run in answer.json()["data"]["data"]]

    assert await listed() == [done, failed, held]
    assert await listed(status="failed") == [failed]
    assert await listed(status="in_progress") == [held]
    assert await listed(**{"metadata[order]": "1"}) == [done, held]
    assert await listed(**{"metadata[order]": "1", "metadata[paid]": "true"}) == [held]
    first = (await world.api.get("/api/v1/runs", params={**MINE, "limit": 2})).json()["data"]
    assert (first["object"], first["has_more"], first["data"][0]) == ("list", True, whole)
    rest = (await world.api.get("/api/v1/runs", params={**MINE, "cursor": first["next_cursor"]})).json()["data"]
    assert ([run["id"] for run in rest["data"]], rest["has_more"]) == ([held], False)
    tasks = (await world.api.get("/api/v1/tasks", params={"run_id": done})).json()["data"]["data"]
    assert [task["step"] for task in tasks] == ["b", "a"]


async def test_the_events_of_a_run_are_its_own_and_its_tasks(world: World) -> None:
    mine, other = await begin(world, step("a")), await begin(world, step("a", sandbox=HELD))
    await ended(world, mine)
    happened = await events_of(world, mine)
    assert (happened[0]["type"], happened[-1]["type"]) == ("run.created", "run.completed")
    assert {each["data"]["run_id"] for each in happened if each["type"].startswith("task.")} == {mine}
    query = {"run_id": f"{mine},{other}", "event_types": "run.created"}
    both = (await world.api.get("/api/v1/events", params=query)).json()["data"]["data"]
    assert [each["data"]["id"] for each in both] == [other, mine]


async def test_a_run_is_made_once_under_one_idempotency_key(world: World) -> None:
    key, body = {"Idempotency-Key": "launch-17"}, {"steps": [step("a")]}
    first = await world.api.post("/api/v1/runs", json=body, headers=key)
    again = await world.api.post("/api/v1/runs", json=copy.deepcopy(body), headers=key)
    assert (again.status_code, again.headers["x-idempotency-replayed"]) == (202, "true")
    assert again.json()["data"] == first.json()["data"]
    run = await ended(world, first.json()["data"]["run_id"])
    assert len(await made(world, run["id"])) == 1


async def test_a_run_whose_create_got_no_response_is_found_and_not_made_again(world: World) -> None:
    key, body = {"Idempotency-Key": "launch-18"}, {"steps": [step("a", sandbox=HELD)]}
    first = await world.api.post("/api/v1/runs", json=body, headers=key)
    run_id = first.json()["data"]["run_id"]
    await until_steps(world, run_id, a="processing")
    write(world, FORGET_ANSWERS, new_id())
    again = await world.api.post("/api/v1/runs", json=body, headers=key)
    assert (again.status_code, again.json()["data"]) == (202, first.json()["data"])
    assert len(await made(world, run_id)) == 1


async def test_a_retry_that_got_no_response_returns_the_run_when_it_is_repeated(world: World) -> None:
    script = {"fail_attempts": 1, "key": "flaky", "outcome": "never"}
    run_id, key = await begin(world, step("a", sandbox=script)), {"Idempotency-Key": "again"}
    await ended(world, run_id)
    path = f"/api/v1/runs/{run_id}/retry"
    assert (await world.api.post(path, headers=key)).status_code == 200
    write(world, FORGET_ANSWERS, new_id())
    again = await world.api.post(path, headers=key)
    assert (again.status_code, again.json()["data"]["status"]) == (200, "in_progress")
    assert (await change(world, run_id, "retry")).status_code == 409
    await push(world, await until_steps(world, run_id, a="processing"), "a", "completed")
    assert (await ended(world, run_id))["status"] == "completed"
