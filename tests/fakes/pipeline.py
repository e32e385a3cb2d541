"""Helpers for tests of runs: steps with a script for the sandbox provider, and the calls that a client makes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from models import RUN_TERMINAL
from tests.fakes.world import QUICK, World, in_process

ACTIONS = Path(__file__).resolve().parents[2] / "deploy" / "actions.toml"
HELD = {"outcome": "never"}
"""A script: the task stays `processing` until the test changes it with `push`."""
WAITING = {"pending_seconds": 3600.0}
"""A script: the task stays `pending`, in which it may be cancelled."""
FAILS = {"outcome": "failed"}
Run = dict[str, Any]
Step = dict[str, Any]


def step(name: str, *depends_on: str, sandbox: Mapping[str, Any] | None = None, **fields: Any) -> Step:
    """Return a step that generates an advertisement and has one attempt, unless `fields` say otherwise."""
    given = {"prompt": name, **fields.pop("input", {}), **({"sandbox": dict(sandbox)} if sandbox else {})}
    return {
        "id": name,
        "action": "campaigns.generate",
        "depends_on": list(depends_on),
        "input": given,
        "retry": {"max_attempts": 1},
        **fields,
    }


@asynccontextmanager
async def world_with_actions(folder: Path, **settings: str) -> AsyncIterator[World]:
    """Run a world with the actions of `deploy/actions.toml`."""
    async with in_process(folder, QUICK, public=True, actions_file=str(ACTIONS), **settings) as world:
        yield world


async def ask(world: World, *steps: Step, **fields: Any) -> httpx.Response:
    """Send a request to create a run; return the response."""
    return await world.api.post("/api/v1/runs", json={"steps": list(steps), **fields})


async def begin(world: World, *steps: Step, **fields: Any) -> str:
    """Create a run, which must be accepted; return its id."""
    answer = await ask(world, *steps, **fields)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["data"]["run_id"])


async def get_run(world: World, run_id: str, **query: Any) -> Run:
    """Return the current state of a run."""
    answer = await world.api.get(f"/api/v1/runs/{run_id}", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def ended(world: World, run_id: str, seconds: float = 20) -> Run:
    """Wait until the run has ended; return it. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while (run := await get_run(world, run_id, wait_for_completion="true"))["status"] not in RUN_TERMINAL:
            pass
    return run


async def until(world: World, run_id: str, enough: Callable[[Run], Any], seconds: float = 20) -> Run:
    """Return the run once `enough` holds for it. The service commits once between two reads. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not enough(run := await get_run(world, run_id)):
            await world.api.get("/readyz")
    return run


async def until_steps(world: World, run_id: str, **wanted: str) -> Run:
    """Return the run once these steps have these statuses. Raises TimeoutError."""
    return await until(world, run_id, lambda run: wanted.items() <= statuses(run).items())


async def change(world: World, run_id: str, what: str) -> httpx.Response:
    """Cancel or retry a run."""
    return await world.api.post(f"/api/v1/runs/{run_id}/{what}")


async def events_of(world: World, run_id: str) -> list[dict[str, Any]]:
    """Return all events of a run and of its steps' tasks, oldest first."""
    answer = await world.api.get("/api/v1/events", params={"run_id": run_id, "limit": 200})
    assert answer.status_code == 200, answer.text
    return list(reversed(answer.json()["data"]["data"]))


async def ends_of(world: World, run_id: str) -> list[str]:
    """Return the types of a run's own events, oldest first."""
    return [event["type"] for event in await events_of(world, run_id) if event["type"].startswith("run.")]


async def made(world: World, run_id: str) -> list[dict[str, Any]]:
    """Return the provider tasks that were created for a run, oldest first."""
    answer = await world.api.get("/api/v1/tasks", params={"run_id": run_id, "limit": 200})
    return await made_for(world, *(task["task_id"] for task in answer.json()["data"]["data"]))


async def made_for(world: World, *task_ids: str) -> list[dict[str, Any]]:
    """Return the provider tasks that were created for these tasks, oldest first."""
    tasks = (await world.provider.get("/sandbox/tasks")).json()["tasks"]
    return [task for task in tasks if any(f"/{task_id}" in task["endpoint"] for task_id in task_ids)]


async def push(world: World, run: Run, name: str, status: str) -> None:
    """Advance the latest provider task of a step to a status."""
    task = (await made_for(world, step_of(run, name)["job_id"]))[-1]
    answer = await world.provider.post(f"/sandbox/tasks/{task['task_id']}/advance", json={"status": status})
    assert answer.status_code == 200, answer.text


def step_of(run: Run, name: str) -> Step:
    """Return one step of a run in the API's form."""
    return next(step for step in run["steps"] if step["id"] == name)


def statuses(run: Run) -> dict[str, str]:
    """Return each step's status by its id."""
    return {step["id"]: step["status"] for step in run["steps"]}
