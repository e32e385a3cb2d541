"""`GET /api/v1/jobs/{id}`: any task as Pi's job, with selected fields and diagnostics."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from receiver.domain.ids import new_id
from tests.fakes.pipeline import (
    FAILS,
    HELD,
    begin,
    ended,
    get_run,
    made_for,
    push,
    step,
    step_of,
    until_steps,
    world_with_actions,
)
from tests.fakes.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIELDS = [
    *("object", "id", "org_id", "type", "status", "payload", "result_url", "error_log", "created_at", "updated_at"),
]
FLAKY = {"fail_attempts": 1, "error": {"code": 7, "message": "out of paint"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the whole module: each test looks only at its own jobs."""
    async with world_with_actions(tmp_path_factory.mktemp("world")) as world:
        yield world


async def ask(world: World, job_id: str, **query: Any) -> httpx.Response:
    return await world.api.get(f"/api/v1/jobs/{job_id}", params=query)


async def job(world: World, job_id: str, **query: Any) -> dict[str, Any]:
    answer = await ask(world, job_id, **query)
    assert (answer.status_code, answer.json()["object"]) == (200, "job"), answer.text
    return dict(answer.json()["data"])


async def refused(world: World, job_id: str, status: int = 400, **query: Any) -> tuple[str, str, str]:
    answer = await ask(world, job_id, **query)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    return error["code"], error["param"], error["message"]


async def test_a_step_s_job_is_its_task_in_pi_s_form(world: World) -> None:
    run = await ended(world, await begin(world, step("a")))
    found, task = step_of(run, "a"), await world.task(step_of(run, "a")["job_id"])
    shown = await job(world, found["job_id"])
    assert list(shown) == [*FIELDS, "job_result"]
    assert (shown["id"], shown["org_id"], shown["type"]) == (found["job_id"], run["org_id"], "generate")
    assert (shown["status"], shown["error_log"]) == ("completed", None)
    assert shown["payload"] == {"prompt": "a", "locale": "en"}
    assert shown["result_url"] == found["result"]["result_url"]
    assert shown["job_result"] == task["output"]
    assert 0 <= shown["updated_at"] - shown["created_at"] < 60
    assert shown["created_at"] == run["created_at"]


async def test_a_job_without_a_result_has_its_error(world: World) -> None:
    run = await ended(world, await begin(world, step("a", sandbox=FAILS)))
    shown = await job(world, step_of(run, "a")["job_id"])
    assert list(shown) == FIELDS
    assert (shown["status"], shown["error_log"], shown["result_url"]) == ("failed", "task failed", None)


async def test_fields_selects_fields_of_the_job(world: World) -> None:
    task_id = await world.created()
    await world.ended(task_id)
    narrow = await job(world, task_id, fields="id,status,result_url")
    assert list(narrow) == ["id", "status", "result_url"]
    assert (narrow["id"], narrow["status"]) == (task_id, "completed")
    assert list(await job(world, task_id, fields=" id ,")) == ["id"]


@pytest.mark.parametrize("word", ["include", "expand"])
async def test_diagnostics_have_the_attempts_and_events(world: World, word: str) -> None:
    flaky = {**FLAKY, "key": word}
    run = await ended(world, await begin(world, step("a", sandbox=flaky, retry={"backoff_seconds": 0})))
    job_id = step_of(run, "a")["job_id"]
    shown = await job(world, job_id, **{word: "diagnostics"}, fields="id")
    assert list(shown) == ["id", "diagnostics"]
    told = shown["diagnostics"]
    assert (told["attempt"], told["max_attempts"], told["submission"], told["has_more"]) == (2, 3, "accepted", False)
    assert [event["type"] for event in told["events"]][:2] == ["task.created", "task.submitted"]
    assert told["events"] == await world.events(job_id)
    first, second = told["attempts"]
    assert (first["attempt"], first["status"], first["error"]["message"]) == (1, "failed", "out of paint")
    assert (second["attempt"], second["status"], second["error"]) == (2, "completed", None)
    ids = [task["task_id"] for task in await made_for(world, job_id)]
    assert [first["provider_task_id"], second["provider_task_id"]] == ids


async def test_an_unknown_name_in_the_query_is_refused_with_the_known_ones(world: World) -> None:
    task_id = await world.created()
    code, param, message = await refused(world, task_id, fields="id,colour")
    assert (code, param) == ("invalid_query_params", "fields")
    assert "'colour'" in message
    assert "result_url" in message
    for word in ("include", "expand"):
        code, param, message = await refused(world, task_id, 400, **{word: "everything"})
        assert (code, param, "diagnostics" in message) == ("invalid_expand_param", word, True)
    code, param, _ = await refused(world, task_id, timeout_seconds="31")
    assert (code, param) == ("invalid_query_params", "timeout_seconds")


async def test_an_id_must_be_that_of_a_job(world: World) -> None:
    assert (await refused(world, "17"))[:2] == ("invalid_job_id", "job_id")
    for wait in ("false", "true"):
        found = await refused(world, new_id(), status=404, wait_for_completion=wait)
        assert found[:2] == ("job_not_found", "job_id")


async def test_a_long_poll_for_a_job_wakes_at_its_end(world: World) -> None:
    run_id = await begin(world, step("a", sandbox=HELD))
    run = await until_steps(world, run_id, a="processing")
    job_id = step_of(run, "a")["job_id"]
    assert (await job(world, job_id, wait_for_completion="true", timeout_seconds=1))["status"] == "processing"
    waiting = asyncio.create_task(job(world, job_id, wait_for_completion="true"))
    await push(world, await get_run(world, run_id), "a", "completed")
    assert (await waiting)["status"] == "completed"
