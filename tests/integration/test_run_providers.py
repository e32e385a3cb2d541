"""A run whose steps use several providers, each against its twin; and the tasks of one provider among all."""

import asyncio
from typing import Any

import httpx

from tests.fakes.command import Ringback
from tests.fakes.dashboard import rows, signed_in
from tests.fakes.pipeline import WAITING, ask, begin, change, ended, get_run, step_of
from tests.fakes.world import World

MODELS = {
    "piapi": "Qubico/flux1-schnell:txt2img",
    "fal": "fal-ai/esrgan:upscale",
    "replicate": "stability-ai/stable-video:video",
}


def step_at(provider: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    """Return a step of a provider that is named as its provider."""
    given = {"prompt": "a cat", **fields.pop("input", {})}
    step = {"id": provider, "action": MODELS[provider], "provider": provider, "depends_on": list(depends_on)}
    return {**step, "input": given, **fields}


def three_providers() -> list[dict[str, Any]]:
    return [
        step_at("piapi"),
        step_at("fal", "piapi", input_map={"image_url": "$steps.piapi.result.image_url"}),
        step_at("replicate", "fal", input_map={"start_image": "$steps.fal.result.result_url"}),
    ]


async def at_provider(world: World) -> dict[str, dict[str, Any]]:
    """Return the provider tasks by the name of the provider, which is in where they report."""
    tasks = (await world.provider.get("/sandbox/tasks")).json()["tasks"]
    return {task["endpoint"].partition("/hooks/")[2].partition("/")[0]: task for task in tasks}


async def test_each_step_has_the_output_of_another_provider_s_step(world: World) -> None:
    run = await ended(world, await begin(world, *three_providers()))
    assert run["status"] == "completed"
    assert {step["id"]: step["provider"] for step in run["steps"]} == {name: name for name in MODELS}
    results = {step["id"]: step["result"] for step in run["steps"]}
    made = await at_provider(world)
    assert made.keys() == MODELS.keys()
    assert made["fal"]["input"]["image_url"] == results["piapi"]["image_url"]
    assert made["replicate"]["input"]["start_image"] == results["fal"]["result_url"]
    for name in MODELS:
        task = await world.task(step_of(run, name)["job_id"])
        assert (task["provider"], task["provider_task_id"]) == (name, made[name]["task_id"])


async def test_a_failure_at_one_provider_skips_what_waits_for_it_at_another(world: World) -> None:
    first, second, third = three_providers()
    second |= {"retry": {"max_attempts": 1}}
    second["input"]["sandbox"] = {"outcome": "failed"}
    run = await ended(world, await begin(world, first, second, third))
    assert {step["id"]: step["status"] for step in run["steps"]} == {
        "piapi": "completed",
        "fal": "failed",
        "replicate": "skipped",
    }


async def test_the_cancel_of_a_run_is_asked_of_every_provider(world: World) -> None:
    run_id = await begin(world, *(step_at(name, input={"sandbox": WAITING}) for name in MODELS))
    tasks = [step["job_id"] for step in (await get_run(world, run_id))["steps"]]
    async with asyncio.timeout(20):
        while {(await world.task(task))["status"] for task in tasks} != {"pending"}:
            await world.api.get("/readyz")
    assert (await change(world, run_id, "cancel")).status_code == 200
    assert (await get_run(world, run_id))["status"] == "cancelled"
    assert [(await world.ended(task))["status"] for task in tasks] == ["cancelled"] * len(MODELS)
    assert {task["status"] for task in (await at_provider(world)).values()} == {"cancelled"}


async def test_a_step_of_an_unknown_provider_is_refused_with_the_nearest_names(world: World) -> None:
    answer = await ask(world, {**step_at("fal"), "provider": "replicat"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "steps.0.provider"
    assert "no provider is named 'replicat'; use replicate" in error["message"]


async def tasks_of(api: httpx.AsyncClient, provider: str) -> list[str]:
    answer = await api.get("/api/v1/tasks", params={"provider": provider})
    assert answer.status_code == 200, answer.text
    return [task["provider"] for task in answer.json()["data"]["data"]]


async def test_tasks_are_filtered_by_their_provider_wherever_they_are_listed(world: World) -> None:
    run = await ended(world, await begin(world, *three_providers()))
    for name in MODELS:
        assert await tasks_of(world.api, name) == [name]
    wrong = await world.api.get("/api/v1/tasks", params={"provider": "fall"})
    assert (wrong.status_code, "use fal" in wrong.text) == (400, True)
    command = Ringback(world)
    (listed,) = (await command.data("task", "list", "--provider", "fal"))["data"]
    assert listed["task_id"] == step_of(run, "fal")["job_id"]
    _, shown, _ = await command.run("run", "get", run["id"])
    for step in run["steps"]:
        (line,) = [line for line in shown.splitlines() if line.startswith(step["id"])]
        assert step["action"] in line
        assert f" {step['provider']} " in line
    async with signed_in(world) as client:
        page = (await client.get("/tasks?provider=replicate&columns=model&columns=provider")).text
        assert rows(page) == [step_of(run, "replicate")["job_id"]]
        page = (await client.get(f"/runs/{run['id']}")).text
        assert page.count('data-label="Provider">') == len(MODELS)
        assert f"{MODELS['fal']} at fal" in page
