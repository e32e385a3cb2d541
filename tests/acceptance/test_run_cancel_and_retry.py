"""Cancelling and retrying runs: at any moment, no step is begun or paid for that is not needed."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.command import Ringback
from tests.fakes.pipeline import (
    FAILS,
    HELD,
    WAITING,
    begin,
    change,
    ended,
    ends_of,
    get_run,
    made,
    push,
    statuses,
    step,
    step_of,
    until,
    until_steps,
    world_with_actions,
)
from tests.fakes.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module; each test uses only its own runs."""
    async with world_with_actions(tmp_path_factory.mktemp("world")) as world:
        yield world


async def cancel_requests(world: World) -> int:
    """Return how many requests to cancel a task the provider has received."""
    return int((await world.provider_stats())["requests"].get("DELETE /api/v1/task/{task_id}", 0))


async def test_cancelling_a_run_cancels_its_pending_provider_tasks_and_begins_no_other_step(world: World) -> None:
    run_id = await begin(world, step("a", sandbox=WAITING), step("b", "a"))
    while not await made(world, run_id):  # the step's status is `queued` both before and after it is submitted
        pass
    answer = await change(world, run_id, "cancel")
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "cancelled")
    run = await until_steps(world, run_id, a="cancelled", b="cancelled")
    assert step_of(run, "b")["error"]["code"] == "cancelled"
    assert [task["status"] for task in await made(world, run_id)] == ["cancelled"]
    assert await ends_of(world, run_id) == ["run.created", "run.cancelled"]


async def test_a_step_that_is_being_submitted_when_its_run_is_cancelled_is_cancelled_after_the_response(
    world: World,
) -> None:
    # The provider responds to the create call only after it has created the task and sent a webhook for it.
    run_id = await begin(world, step("a", sandbox={**WAITING, "submit": "hang", "hang_seconds": 0.3}))
    await until(world, run_id, lambda run: step_of(run, "a")["job_id"])
    while not await made(world, run_id):
        pass
    assert (await change(world, run_id, "cancel")).status_code == 200
    await until_steps(world, run_id, a="cancelled")
    assert [task["status"] for task in await made(world, run_id)] == ["cancelled"]


async def test_a_task_that_cannot_be_cancelled_ends_by_itself_and_is_not_retried(world: World) -> None:
    held = step("a", sandbox=HELD, retry={"max_attempts": 5, "backoff_seconds": 0})
    run_id = await begin(world, held, step("b", sandbox=HELD), step("c", "a", "b"))
    run = await until_steps(world, run_id, a="processing", b="processing")
    before = await cancel_requests(world)
    assert (await change(world, run_id, "cancel")).status_code == 200
    async with asyncio.timeout(20):
        while await cancel_requests(world) < before + 2:
            pass
    await push(world, run, "a", "failed")
    await push(world, run, "b", "completed")
    run = await until_steps(world, run_id, a="failed", b="completed", c="cancelled")
    assert run["status"] == "cancelled"
    assert len(await made(world, run_id)) == 2
    assert await ends_of(world, run_id) == ["run.created", "run.cancelled"]


async def test_a_step_that_waits_for_its_next_attempt_is_cancelled_at_once(world: World) -> None:
    retry = {"max_attempts": 2, "backoff_seconds": 3600}
    run_id = await begin(world, step("a", sandbox=FAILS, retry=retry))
    run = await get_run(world, run_id)
    async with asyncio.timeout(20):
        while (await world.task(step_of(run, "a")["job_id"]))["attempt"] == 1:
            pass
    await change(world, run_id, "cancel")
    await until_steps(world, run_id, a="cancelled")
    assert len(await made(world, run_id)) == 1


async def test_a_run_that_has_ended_cannot_be_cancelled_and_a_second_cancel_changes_nothing(world: World) -> None:
    done, run_id = await begin(world, step("a")), await begin(world, step("a", sandbox=WAITING))
    await ended(world, done)
    refused = await change(world, done, "cancel")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert "completed" in refused.json()["error"]["message"]
    for _ in range(2):
        assert (await change(world, run_id, "cancel")).json()["data"]["status"] == "cancelled"
    assert await ends_of(world, run_id) == ["run.created", "run.cancelled"]


async def test_the_command_line_cancels_a_run(world: World) -> None:
    run_id, ringback = await begin(world, step("a", sandbox=WAITING)), Ringback(world)
    status, out, err = await ringback.run("run", "get", run_id, "--wait", "--timeout", "0")
    assert (status, "queued" in out or "pending" in out, "run get" in err) == (4, True, True)
    assert (await ringback.data("run", "cancel", run_id))["status"] == "cancelled"
    assert (await ringback.data("run", "get", run_id, "--wait", status=1))["status"] == "cancelled"


async def test_a_retry_keeps_completed_steps_and_does_not_submit_them_again(world: World) -> None:
    flaky = step("flaky", "good", sandbox={"fail_attempts": 1, "key": "flaky"})
    run_id = await begin(world, step("good"), flaky, step("last", "flaky"))
    failed = await ended(world, run_id)
    assert statuses(failed) == {"good": "completed", "flaky": "failed", "last": "skipped"}
    answer = await change(world, run_id, "retry")
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "in_progress")
    run = await ended(world, run_id)
    assert statuses(run) == dict.fromkeys(["good", "flaky", "last"], "completed")
    assert step_of(run, "good") == step_of(failed, "good")
    assert step_of(run, "flaky")["job_id"] != step_of(failed, "flaky")["job_id"]
    assert [task["input"]["prompt"] for task in await made(world, run_id)] == ["good", "flaky", "flaky", "last"]
    assert await ends_of(world, run_id) == ["run.created", "run.failed", "run.completed"]


async def test_a_retry_continues_a_cancelled_run(world: World) -> None:
    run_id = await begin(world, step("a"), step("b", "a", sandbox=WAITING), step("c", "b"))
    await until(world, run_id, lambda run: step_of(run, "b")["status"] == "queued")
    await change(world, run_id, "cancel")
    await until_steps(world, run_id, a="completed", b="cancelled", c="cancelled")
    run = (await change(world, run_id, "retry")).json()["data"]
    assert statuses(run) == {"a": "completed", "b": "queued", "c": "pending"}
    assert (await change(world, run_id, "retry")).status_code == 409
    await until(world, run_id, lambda run: step_of(run, "b")["job_id"])
    await change(world, run_id, "cancel")
