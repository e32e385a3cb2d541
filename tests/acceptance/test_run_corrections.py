"""A step that completes after all, or gets its result late, corrects its run: silently before the run's end is told."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.inbound import PICTURE, report
from tests.fakes.pipeline import (
    HELD,
    begin,
    change,
    ended,
    ends_of,
    events_of,
    made,
    push,
    statuses,
    step,
    step_of,
    until_steps,
    world_with_actions,
)
from tests.fakes.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

ERROR = {"code": 10000, "raw_message": "", "message": "task failed", "detail": None}
IMAGE = "$steps.a.result.image_url"
ANY = {"action": "flux:txt2img"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world_with_actions(tmp_path_factory.mktemp("world")) as world:
        yield world


async def says(world: World, run: dict[str, Any], name: str, status: str, **fields: Any) -> None:
    """Post the provider's webhook for a step's task."""
    answer = await report(world, step_of(run, name)["job_id"], status, **fields)
    assert answer.status_code == 200, answer.text


async def run_events(world: World, run_id: str) -> list[dict[str, Any]]:
    return [event for event in await events_of(world, run_id) if event["type"].startswith("run.")]


async def test_before_its_end_a_run_goes_on_as_if_the_step_had_not_failed(world: World) -> None:
    run_id = await begin(world, step("a", sandbox=HELD), step("b", "a"), step("slow", sandbox=HELD))
    run = await until_steps(world, run_id, a="processing", slow="processing")
    await says(world, run, "a", "failed", error=ERROR)
    await until_steps(world, run_id, a="failed", b="skipped")
    await says(world, run, "a", "completed", output=PICTURE)
    await until_steps(world, run_id, a="completed", b="completed")
    await push(world, run, "slow", "completed")
    await says(world, run, "slow", "completed", output=PICTURE)
    run = await ended(world, run_id)
    assert (run["status"], step_of(run, "a")["error"]) == ("completed", None)
    assert await ends_of(world, run_id) == ["run.created", "run.completed"]


async def test_after_its_end_a_run_goes_on_and_its_new_end_corrects_the_one_that_was_told(world: World) -> None:
    run_id = await begin(world, step("a", sandbox=HELD), step("b", "a"))
    run = await until_steps(world, run_id, a="processing")
    await says(world, run, "a", "failed", error=ERROR)
    assert (await ended(world, run_id))["status"] == "failed"
    await says(world, run, "a", "completed", output=PICTURE)
    await until_steps(world, run_id, a="completed", b="completed")
    assert (await ended(world, run_id))["status"] == "completed"
    created, failed, completed = await run_events(world, run_id)
    assert [each["type"] for each in (created, failed, completed)] == ["run.created", "run.failed", "run.completed"]
    assert completed["data"]["corrects"] == failed["id"]
    assert "corrects" not in failed["data"]
    assert len(await made(world, run_id)) == 2


async def test_a_run_that_cannot_go_on_keeps_its_end_and_tells_it_once(world: World) -> None:
    both = [step("a", sandbox=HELD, on_failure="continue"), step("b", sandbox=HELD, on_failure="continue")]
    run_id = await begin(world, *both, step("c", "a", "b"))
    run = await until_steps(world, run_id, a="processing", b="processing")
    await says(world, run, "a", "failed", error=ERROR)
    await says(world, run, "b", "failed", error=ERROR)
    first = await ended(world, run_id)
    await says(world, run, "a", "completed", output=PICTURE)
    run = await until_steps(world, run_id, a="completed", c="skipped")
    assert (run["status"], statuses(run)["b"]) == ("failed", "failed")
    assert first["status"] == "failed"
    assert await ends_of(world, run_id) == ["run.created", "run.failed"]


async def test_a_step_that_lacked_a_late_result_begins_when_it_comes(world: World) -> None:
    run_id = await begin(
        world,
        step("a", sandbox=HELD, **ANY),
        step("b", "a", input_map={"image": IMAGE}),
        step("c", "b"),
    )
    run = await until_steps(world, run_id, a="processing")
    await says(world, run, "a", "completed", output={})
    run = await ended(world, run_id)
    assert step_of(run, "b")["error"]["code"] == "reference_leads_nowhere"
    await says(world, run, "a", "completed", output=PICTURE)
    await until_steps(world, run_id, b="completed", c="completed")
    run = await ended(world, run_id)
    assert (run["status"], step_of(run, "a")["result"]["image_url"]) == ("completed", PICTURE["image_url"])
    _, failed, completed = await run_events(world, run_id)
    assert completed["data"]["corrects"] == failed["id"]


async def test_a_result_that_comes_after_a_run_completed_is_told_with_the_run(world: World) -> None:
    run_id = await begin(world, step("a", sandbox=HELD, **ANY))
    run = await until_steps(world, run_id, a="processing")
    await says(world, run, "a", "completed", output={})
    first = await ended(world, run_id)
    for _ in range(2):
        await says(world, run, "a", "completed", output=PICTURE)
    _, told, corrected = await run_events(world, run_id)
    assert (corrected["type"], corrected["data"]["corrects"]) == ("run.completed", told["id"])
    (step_then,) = corrected["data"]["steps"]
    assert step_then["result"]["image_url"] == PICTURE["image_url"]
    run = await ended(world, run_id)
    assert (run["status"], step_of(run, "a")["completed_at"]) == ("completed", step_of(first, "a")["completed_at"])


async def test_a_late_result_changes_no_other_step_of_a_cancelled_run(world: World) -> None:
    run_id = await begin(
        world,
        step("a", sandbox=HELD, on_failure="continue", **ANY),
        step("b", "a", input_map={"image": IMAGE}, on_failure="continue"),
        step("slow", sandbox=HELD),
    )
    run = await until_steps(world, run_id, a="processing", slow="processing")
    await says(world, run, "a", "completed", output={})
    await until_steps(world, run_id, b="failed")
    await change(world, run_id, "cancel")
    await says(world, run, "a", "completed", output=PICTURE)
    run = await until_steps(world, run_id, a="completed")
    assert step_of(run, "a")["result"]["image_url"] == PICTURE["image_url"]
    assert statuses(run)["b"] == "failed"
    assert (await ends_of(world, run_id))[-1] == "run.cancelled"


async def test_a_cancelled_run_stays_cancelled(world: World) -> None:
    run_id = await begin(world, step("a", sandbox=HELD, on_failure="continue"), step("b", "a"))
    run = await until_steps(world, run_id, a="processing")
    await change(world, run_id, "cancel")
    await says(world, run, "a", "failed", error=ERROR)
    await says(world, run, "a", "completed", output=PICTURE)
    run = await until_steps(world, run_id, a="completed")
    assert (run["status"], statuses(run)["b"]) == ("cancelled", "cancelled")
    assert await ends_of(world, run_id) == ["run.created", "run.cancelled"]


async def test_the_end_of_a_run_that_was_retried_corrects_nothing(world: World) -> None:
    run_id = await begin(world, step("a", sandbox=HELD), step("b", "a"))
    run = await until_steps(world, run_id, a="processing")
    await says(world, run, "a", "failed", error=ERROR)
    await ended(world, run_id)
    await change(world, run_id, "retry")
    run = await until_steps(world, run_id, a="processing")
    await says(world, run, "a", "completed", output=PICTURE)
    await until_steps(world, run_id, b="completed")
    assert "corrects" not in (await run_events(world, run_id))[-1]["data"]
