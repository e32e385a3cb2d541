"""What the API tells of runs besides their state: how each step was requested, attempts, the history, brief lists."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.pipeline import FAILS, begin, ended, events_of, get_run, step, step_of, world_with_actions
from tests.fakes.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module; each test uses only its own runs."""
    async with world_with_actions(tmp_path_factory.mktemp("world")) as world:
        yield world


async def test_details_have_each_step_as_requested_and_the_attempts_of_its_task(world: World) -> None:
    retry = {"max_attempts": 2, "backoff_seconds": 0}
    parts = {"input_map": {"from": "$steps.a.result.task_id"}, "retry": retry, "on_failure": "continue"}
    run_id = await begin(world, step("a"), step("b", "a", sandbox=FAILS, **parts), step("c", "b"))
    plain = await ended(world, run_id)
    run = await get_run(world, run_id, include="details")
    b = step_of(run, "b")
    assert {name: b[name] for name in parts} == parts
    assert b["input"] == {"prompt": "b", "sandbox": FAILS}
    assert [(each["attempt"], each["status"]) for each in b["attempts"]] == [(1, "failed"), (2, "failed")]
    assert [len(step_of(run, name)["attempts"]) for name in ("a", "c")] == [1, 0]
    extra = {"input", "input_map", "on_failure", "retry", "attempts"}
    shown = [{name: value for name, value in each.items() if name not in extra} for each in run["steps"]]
    assert {**run, "steps": shown} == plain
    other = await world.api.get(f"/api/v1/runs/{run_id}", params={"include": "all"})
    assert (other.status_code, other.json()["error"]["code"]) == (400, "invalid_query_params")


async def test_a_brief_list_is_without_results_and_tells_how_long_a_run_took(world: World) -> None:
    run_id = await begin(world, step("a"), metadata={"only": "this"})
    run = await ended(world, run_id)
    query = {"metadata[only]": "this", "brief": "true"}
    (brief,) = (await world.api.get("/api/v1/runs", params=query)).json()["data"]["data"]
    few = ("id", "status", "job_id", "started_at", "completed_at")
    assert 0 < brief.pop("duration_seconds") < 30
    assert brief == {**run, "steps": [{name: run["steps"][0][name] for name in few}]}


async def test_a_run_s_history_is_its_own_and_that_of_its_tasks(world: World) -> None:
    run_id = await begin(world, step("a"), step("b", "a"))
    await begin(world, step("other"))
    await ended(world, run_id)
    path = f"/api/v1/runs/{run_id}/events"
    listed = (await world.api.get(path, params={"limit": 200})).json()["data"]["data"]
    assert listed[::-1] == await events_of(world, run_id)
    assert {event["type"] for event in listed} >= {"run.created", "run.completed", "task.created", "task.completed"}
    first = (await world.api.get(path, params={"limit": 2})).json()["data"]
    rest = await world.api.get(path, params={"limit": 200, "cursor": first["next_cursor"]})
    assert first["data"] + rest.json()["data"]["data"] == listed


async def test_a_brief_history_is_without_what_may_be_large(world: World) -> None:
    run_id = await begin(world, step("a"))
    await ended(world, run_id)
    brief = (await world.api.get(f"/api/v1/runs/{run_id}/events", params={"brief": "true"})).json()["data"]["data"]
    large = {"input", "output", "logs", "config", "usage"}
    for short, event in zip(brief[::-1], await events_of(world, run_id), strict=True):
        assert large.isdisjoint(short["data"])
        if event["task_id"] is None:
            assert all("result" not in each for each in short["data"]["steps"])
        else:
            assert short == {**event, "data": {k: v for k, v in event["data"].items() if k not in large}}


async def test_another_organization_does_not_see_the_history_of_a_run(world: World) -> None:
    run_id = await begin(world, step("a"))
    await ended(world, run_id)
    other = (await world.api.post("/api/v1/organizations", json={"name": "other"})).json()["data"]["key"]
    answer = await world.api.get(f"/api/v1/runs/{run_id}/events", headers={"x-api-key": other})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "run_not_found")
