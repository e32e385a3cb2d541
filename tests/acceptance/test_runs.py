"""Runs: a step begins when the steps that it depends on are completed, and may use their results."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from receiver.events import after_commit
from receiver.sandbox import SandboxOptions
from tests.fakes.command import Ringback
from tests.fakes.pipeline import (
    ACTIONS,
    FAILS,
    HELD,
    ask,
    begin,
    ended,
    ends_of,
    get_run,
    made,
    made_for,
    push,
    statuses,
    step,
    step_of,
    until_steps,
    world_with_actions,
)
from tests.fakes.world import World, in_processes

CAMPAIGN: dict[str, Any] = {
    "steps": [
        {"id": "extract_brand", "action": "brands.extract", "input": {"url": "https://example.com"}},
        {
            "id": "generate_hero",
            "action": "campaigns.generate",
            "depends_on": ["extract_brand"],
            "input": {"prompt": "Create a hero campaign ad"},
            "input_map": {"brand_id": "$steps.extract_brand.result.brand_id"},
        },
        {
            "id": "localize_german",
            "action": "campaigns.localize_ad",
            "depends_on": ["generate_hero"],
            "input": {"locale": "de"},
            "input_map": {
                "campaign_id": "$steps.generate_hero.result.campaign_id",
                "image_url": "$steps.generate_hero.result.image_urls[0]",
                "market": "$run.metadata.market",
            },
        },
    ],
    "metadata": {"pipeline": "campaign-launch", "market": "dach"},
}
"""The example of `receiver/api/CONTRACTS.md`, section "Pi", with a third step."""


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for all tests of this module; each test uses only its own runs."""
    async with world_with_actions(tmp_path_factory.mktemp("world")) as world:
        yield world


async def test_the_example_of_the_contract_runs_step_by_step(world: World) -> None:
    answer = await world.api.post("/api/v1/runs", json=CAMPAIGN)
    envelope = answer.json()
    assert (answer.status_code, envelope["object"], envelope["status"]) == (202, "run", "queued")
    run_id = envelope["data"].pop("run_id")
    names = ["extract_brand", "generate_hero", "localize_german"]
    steps = [{"id": name, "status": "pending"} for name in names]
    assert envelope["data"] == {"object": "run", "status": "pending", "steps": steps}
    run = await ended(world, run_id)
    assert (run["status"], run["metadata"]) == ("completed", CAMPAIGN["metadata"])
    assert statuses(run) == dict.fromkeys(names, "completed")
    brand, hero, german = (each["result"] for each in run["steps"])
    assert (brand["name"], hero["headline"], german["locale"]) == ("Example", "Create a hero campaign ad", "de")
    inputs = [task["input"] for task in await made(world, run_id)]
    assert inputs == [
        {"url": "https://example.com"},
        {"prompt": "Create a hero campaign ad", "brand_id": brand["brand_id"], "locale": "en"},
        {"locale": "de", "campaign_id": hero["campaign_id"], "image_url": hero["image_url"], "market": "dach"},
    ]
    assert german["campaign_id"] == hero["campaign_id"]
    assert await ends_of(world, run_id) == ["run.created", "run.completed"]


async def test_a_run_has_the_fields_of_the_pi_contract(world: World) -> None:
    run = await ended(world, await begin(world, *CAMPAIGN["steps"]))
    fields = ["object", "id", "org_id", "status", "steps", "metadata", "created_at", "updated_at"]
    assert (list(run), run["metadata"]) == (fields, None)
    hero = step_of(run, "generate_hero")
    assert list(hero) == [
        *(
            "id",
            "action",
            "status",
            "depends_on",
            "job_id",
            "result",
            "error",
            "started_at",
            "completed_at",
            "provider",
        ),
    ]
    assert (hero["action"], hero["depends_on"], hero["error"]) == ("campaigns.generate", ["extract_brand"], None)
    moments = (run["created_at"], hero["started_at"], hero["completed_at"], run["updated_at"])
    assert all(isinstance(moment, int) for moment in moments)
    assert list(moments) == sorted(moments)
    task = await world.task(hero["job_id"])
    assert (task["run_id"], task["step"], task["status"]) == (run["id"], "generate_hero", "completed")


async def test_the_command_line_creates_a_run_and_waits_for_its_end(world: World) -> None:
    ringback = Ringback(world)
    run = await ringback.data("run", "create", "-f", "-", "--wait", stdin=json.dumps(CAMPAIGN))
    assert run == await get_run(world, run["id"])
    assert run["status"] == "completed"
    (world.folder / "failing.json").write_text(json.dumps({"steps": [step("a", sandbox=FAILS), step("b", "a")]}))
    status, out, err = await ringback.run("run", "create", "-f", "failing.json", "--wait")
    assert (status, err) == (1, "")
    assert "task failed" in out
    assert "step 'a' did not complete" in out


async def test_an_invalid_run_is_reported_in_one_line_that_names_every_problem(world: World) -> None:
    ringback = Ringback(world)
    bad = {"steps": [step("a", "z"), step("a b", action="nothing")]}
    status, out, err = await ringback.run("run", "create", "-f", "-", stdin=json.dumps(bad))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "steps[0].depends_on: the run has no step 'z'; steps[1].id: an id must have" in err
    assert "use brands.extract" in err
    status, _, err = await ringback.run("run", "create", "-f", "not-there.json")
    assert (status, err) == (2, "ringback: --file not-there.json: No such file or directory\n")
    status, _, err = await ringback.run("run", "get", "17")
    assert (status, err) == (2, "ringback: '17' is not a UUID\n")


async def test_steps_that_are_ready_run_concurrently_and_the_end_of_the_last_begins_the_next(world: World) -> None:
    run_id = await begin(world, step("a", sandbox=HELD), step("b", sandbox=HELD), step("c", "a", "b"))
    run = await until_steps(world, run_id, a="processing", b="processing", c="pending")
    assert run["status"] == "in_progress"
    await push(world, run, "b", "completed")
    await until_steps(world, run_id, a="processing", b="completed", c="pending")
    assert len(await made(world, run_id)) == 2
    await push(world, run, "a", "completed")
    assert (await ended(world, run_id))["status"] == "completed"
    assert len(await made(world, run_id)) == 3


async def test_a_failed_step_skips_its_dependents_and_every_step_that_has_not_begun(world: World) -> None:
    steps = [step("bad", sandbox=FAILS), step("below", "bad"), step("deep", "below"), step("slow", sandbox=HELD)]
    run_id = await begin(world, *steps, step("late", "slow"))
    run = await until_steps(world, run_id, bad="failed", below="skipped", deep="skipped", late="skipped")
    assert (run["status"], statuses(run)["slow"]) == ("in_progress", "processing")
    assert step_of(run, "bad")["error"]["message"] == "task failed"
    assert "'bad'" in step_of(run, "deep")["error"]["message"]
    assert step_of(run, "deep")["job_id"] is None
    await push(world, run, "slow", "completed")
    run = await ended(world, run_id)
    assert (run["status"], statuses(run)["slow"]) == ("failed", "completed")
    assert len(await made(world, run_id)) == 2
    assert await ends_of(world, run_id) == ["run.created", "run.failed"]


async def test_with_on_failure_continue_independent_steps_go_on_and_the_run_still_fails(world: World) -> None:
    bad = step("bad", sandbox=FAILS, on_failure="continue")
    run = await ended(world, await begin(world, bad, step("below", "bad"), step("other"), step("late", "other")))
    assert run["status"] == "failed"
    assert statuses(run) == {"bad": "failed", "below": "skipped", "other": "completed", "late": "completed"}


async def test_a_temporary_failure_is_retried_under_the_same_job_id(world: World) -> None:
    script = {"fail_attempts": 2, "key": "work"}
    run_id = await begin(world, step("a", sandbox=script, retry={"backoff_seconds": 0.01}), step("b", "a"))
    run = await ended(world, run_id)
    assert run["status"] == "completed"
    job_id = step_of(run, "a")["job_id"]
    assert len(await made_for(world, job_id)) == 3
    assert (await world.task(job_id))["attempt"] == 3


async def test_a_reference_that_leads_nowhere_fails_its_step_and_the_error_names_the_existing_fields(
    world: World,
) -> None:
    path = "$steps.brand.result.address.city"
    brand = step("brand", action="brands.extract", input={"url": "https://example.com"})
    run = await ended(world, await begin(world, brand, step("ad", "brand", input_map={"city": path}), step("c", "ad")))
    assert statuses(run) == {"brand": "completed", "ad": "failed", "c": "skipped"}
    error = step_of(run, "ad")["error"]
    assert error["code"] == "reference_leads_nowhere"
    assert f"`{path}` has no value: `$steps.brand.result` is an object with" in error["message"]
    assert "brand_id" in error["message"]
    assert len(await made(world, run["id"])) == 1


async def test_a_first_step_that_cannot_begin_fails_its_run_at_once(world: World) -> None:
    run = await get_run(world, await begin(world, step("a", input_map={"b": "$run.metadata.b"}), step("c", "a")))
    assert (run["status"], statuses(run)) == ("failed", {"a": "failed", "c": "skipped"})
    assert await ends_of(world, run["id"]) == ["run.created", "run.failed"]


async def test_a_long_poll_returns_when_the_run_ends_and_not_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(after_commit, "_REREAD_SECONDS", 3600.0)
    run_id = await begin(world, step("a", sandbox=HELD), step("b", "a"))
    run = await until_steps(world, run_id, a="processing")
    async with asyncio.timeout(20):
        waiting = asyncio.create_task(get_run(world, run_id, wait_for_completion="true", timeout_seconds=30))
        await push(world, run, "a", "completed")
        assert (await waiting)["status"] == "completed"


async def test_a_long_poll_that_times_out_returns_the_current_state_of_the_run(world: World) -> None:
    run_id = await begin(world, step("a", sandbox=HELD))
    run = await get_run(world, run_id, wait_for_completion="true", timeout_seconds=1)
    assert run["status"] == "in_progress"


async def test_a_run_continues_after_a_kill(tmp_path: Path) -> None:
    async with in_processes(tmp_path, SandboxOptions(duration=0.05), actions_file=str(ACTIONS)) as world:
        run_id = await begin(world, step("a", sandbox=HELD), step("b", "a"), step("c", "b"))
        run = await until_steps(world, run_id, a="processing")
        await world.kill()
        await world.start()
        await push(world, run, "a", "completed")
        run = await ended(world, run_id)
        assert statuses(run) == {"a": "completed", "b": "completed", "c": "completed"}
        assert len(await made(world, run_id)) == 3


async def test_an_action_may_be_a_model_and_a_task_type(world: World) -> None:
    answer = await ask(world, {"id": "a", "action": "kling:video_generation", "input": {"prompt": "a cat"}})
    run = await ended(world, answer.json()["data"]["run_id"])
    assert step_of(run, "a")["result"]["result_url"].endswith(".mp4")
    (task,) = await made(world, run["id"])
    assert (task["model"], task["task_type"]) == ("kling", "video_generation")
