"""`kill -9` during a run, and a provider outage: the run continues, and each step is submitted and reported once."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from models import RUN_TERMINAL, StepStatus
from receiver.app import create_app
from receiver.runs import advance
from receiver.sandbox import SandboxOptions, create_sandbox
from receiver.serving.master_keys import master_keys
from receiver.storage.runs import lock_runs
from tests.fakes.inbound import report
from tests.fakes.pipeline import (
    ACTIONS,
    HELD,
    WAITING,
    Run,
    Step,
    ask,
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
from tests.fakes.rows import eventually, select
from tests.fakes.servers import bound, served, url_of
from tests.fakes.world import FAST_POLLING, PERSISTENT, ProcessWorld, World, in_processes

SLOWER = replace(PERSISTENT, duration=0.2, pending_seconds=0.05)
KILLS = 5
_RANKS = {StepStatus.QUEUED: 1, StepStatus.PROCESSING: 2, StepStatus.COMPLETED: 3}
"""How far a step has come, by its status."""


def chain(count: int, **first: Any) -> list[Step]:
    """Return steps of which each uses the result of the previous one; `first` is the script of the first step."""
    steps = [step("s1", sandbox=first or None)]
    for number in range(2, count + 1):
        before = f"s{number - 1}"
        given = {"after": f"$steps.{before}.result.campaign_id"}
        steps.append(step(f"s{number}", before, input_map=given))
    return steps


@asynccontextmanager
async def service(
    folder: Path, options: SandboxOptions = PERSISTENT, *, crash: str | None = None
) -> AsyncIterator[ProcessWorld]:
    """Run the service in its own process with a subscriber to the ends of runs; `crash` is where it kills itself."""
    settings = {**FAST_POLLING, "actions_file": str(ACTIONS), "submission_unknown_seconds": "2"}
    async with in_processes(folder, options, start=False, **settings) as world:
        await world.start(crash=crash)
        await world.webhook(event_types=["run.completed", "run.failed"])
        yield world


async def ask_until_death(world: ProcessWorld, *steps: Step) -> None:
    """Create a run in a way that kills the service; wait until it is dead."""
    with pytest.raises(httpx.TransportError):
        await ask(world, *steps)
    await world.died()


async def completes(world: World, run_id: str, count: int, *, events: tuple[str, ...] = ("run.completed",)) -> Run:
    """Check that the run completes, each step was submitted once with the right input, and its end has one event id."""
    run = await ended(world, run_id)
    assert run["status"] == "completed", run
    names = [f"s{number}" for number in range(1, count + 1)]
    assert statuses(run) == dict.fromkeys(names, "completed")
    assert (await world.provider_stats())["created"] == count
    tasks = await made(world, run_id)
    results = [step_of(run, name)["result"] for name in names]
    assert [result["headline"] for result in results] == names
    assert [task["input"].get("after") for task in tasks] == [None, *(each["campaign_id"] for each in results[:-1])]
    assert await ends_of(world, run_id) == ["run.created", *events]
    await world.subscriber.until(lambda received: any(each.json["type"] == "run.completed" for each in received))
    ends = [received for received in world.subscriber.received if received.json["type"] == "run.completed"]
    assert len({received.event_id for received in ends}) == 1
    assert ends[0].json["data"] == run
    return run


async def test_before_the_commit_of_a_run_nothing_of_it_is_stored(tmp_path: Path) -> None:
    async with service(tmp_path, crash="before_the_commit_of_a_run") as world:
        await ask_until_death(world, *chain(2))
        assert [select(world, f"SELECT id FROM {table}") for table in ("run", "run_step", "task", "event")] == [[]] * 4
        await world.start()
        await completes(world, await begin(world, *chain(2)), 2)


async def test_after_the_commit_of_a_run_it_continues_although_its_creator_received_no_response(tmp_path: Path) -> None:
    async with service(tmp_path, crash="after_the_commit_of_a_run") as world:
        await ask_until_death(world, *chain(2))
        (row,) = select(world, "SELECT uid FROM run")
        await world.start()
        await completes(world, row["uid"], 2)


@pytest.mark.parametrize(
    "point",
    ["after_the_providers_answer", "before_the_commit_of_a_step_s_end", "after_the_commit_of_a_step_s_end"],
)
async def test_a_kill_between_two_steps_neither_loses_nor_repeats_a_step(tmp_path: Path, point: str) -> None:
    async with service(tmp_path) as world:
        run_id = await begin(world, *chain(3, **HELD))
        run = await until_steps(world, run_id, s1="processing")
        await world.stop()
        await world.start(crash=point)
        await push(world, run, "s1", "completed")
        await world.died()
        (first, second, _) = select(world, "SELECT status FROM run_step ORDER BY position")
        is_committed = point != "before_the_commit_of_a_step_s_end"
        wanted = ("completed", "queued") if is_committed else ("processing", "pending")
        assert (first["status"], second["status"]) == wanted
        await world.start()
        await completes(world, run_id, 3)


@pytest.mark.parametrize("seed", [20])
async def test_kills_at_random_moments_of_a_run_neither_lose_nor_repeat_a_step(tmp_path: Path, seed: int) -> None:
    rng, count = random.Random(seed), 5
    async with service(tmp_path, SLOWER) as world:
        run_id = await begin(world, *chain(count))
        for moment in sorted(rng.sample(range(1, 3 * count), KILLS)):
            await until(world, run_id, partial(has_reached, moment))
            await world.kill()
            await world.start()
        events = ["run.completed"]
        while (run := await ended(world, run_id))["status"] == "failed":
            # It was killed between the intent and the call. Whether the provider created the task is unknown to
            # Ringback, so only a person may have it sent again.
            assert {each["error"]["code"] for each in run["steps"] if each["status"] == "failed"} == {
                "submission_unknown"
            }
            events.insert(0, "run.failed")
            assert (await world.api.post(f"/api/v1/runs/{run_id}/retry")).status_code == 200
        await completes(world, run_id, count, events=tuple(events))
        assert set((await world.provider_stats())["by_endpoint"].values()) == {1}


async def test_a_cancelled_run_is_neither_sent_nor_tried_again_after_a_kill_and_its_provider_is_asked_to_cancel(
    tmp_path: Path,
) -> None:
    retry = {"max_attempts": 3, "backoff_seconds": 0}
    async with service(tmp_path) as world:
        begun = (step("pending", sandbox=WAITING), step("held", sandbox=HELD, retry=retry))
        run_id = await begin(world, *begun, step("next", "held"))
        run = await until_steps(world, run_id, held="processing")
        while len(await made(world, run_id)) < 2:
            pass
        await world.provider_options(submit_status=503, cancel_status=503)
        unsent = await cancelled_unsent(world)
        assert (await change(world, run_id, "cancel")).status_code == 200
        await world.kill()
        await world.provider_options(submit_status=None, cancel_status=None)
        await world.start()
        await until_steps(world, run_id, pending="cancelled", next="cancelled")
        await push(world, run, "held", "failed")
        run = await until_steps(world, run_id, held="failed")
        assert (await world.task(step_of(run, "held")["job_id"]))["attempt"] == 1
        assert statuses(await get_run(world, unsent)) == {"unsent": "cancelled"}
        tasks = {task["input"]["prompt"]: task["status"] for task in await made(world, run_id)}
        assert tasks == {"pending": "cancelled", "held": "failed"}
        assert (await world.provider_stats())["created"] == 2
        assert await ends_of(world, run_id) == ["run.created", "run.cancelled"]


async def cancelled_unsent(world: World) -> str:
    """Cancel a run whose step waits to be sent, not one whose create call is just being made; return its id."""
    while True:
        run_id = await begin(world, step("unsent"))
        assert (await change(world, run_id, "cancel")).status_code == 200
        if statuses(await get_run(world, run_id)) == {"unsent": "cancelled"}:
            return run_id


def has_reached(moment: int, run: Run) -> bool:
    """Return whether the ranks of a run's steps add up to `moment`, or the run has ended."""
    reached = sum(_RANKS.get(StepStatus(status), 0) for status in statuses(run).values())
    return reached >= moment or run["status"] in RUN_TERMINAL


async def test_a_run_waits_while_the_provider_answers_503_and_continues_by_itself(tmp_path: Path) -> None:
    async with world_with_actions(tmp_path, **FAST_POLLING) as world:
        await world.webhook(event_types=["run.completed"])
        run_id = await begin(world, *chain(2, **HELD))
        run = await until_steps(world, run_id, s1="processing")
        await world.provider_options(submit_status=503, poll_status=503)
        await push(world, run, "s1", "completed")
        await eventually(world, "SELECT poll_count FROM task WHERE submission = 'waiting' AND poll_count >= 1", bool)
        assert statuses(await get_run(world, run_id)) == {"s1": "completed", "s2": "queued"}
        await world.provider_options(submit_status=None, poll_status=None)
        await completes(world, run_id, 2)


async def test_a_run_waits_while_the_provider_refuses_connections_and_continues_by_itself(tmp_path: Path) -> None:
    with bound() as silent:
        async with world_with_actions(tmp_path, piapi_base_url=url_of(silent), **FAST_POLLING) as world:
            await world.webhook(event_types=["run.completed"])
            run_id = await begin(world, *chain(2))
            await eventually(
                world, "SELECT poll_count FROM task WHERE submission = 'waiting' AND poll_count >= 1", bool
            )
            async with served(create_sandbox(PERSISTENT), silent):
                await completes(world, run_id, 2)


_TOGETHER = 8


@pytest.mark.postgresql_only("SQLite has one process")
async def test_two_processes_that_receive_a_step_s_end_at_once_begin_the_next_step_once(tmp_path: Path) -> None:
    async with world_with_actions(tmp_path) as world, another(world) as other:
        runs = [await begin(world, *chain(2, **HELD)) for _ in range(_TOGETHER)]
        held = [step_of(await until_steps(world, run_id, s1="processing"), "s1") for run_id in runs]
        await complete_at_both(world, other, *(each["job_id"] for each in held))
        for run_id in runs:
            assert (await ended(world, run_id))["status"] == "completed"
            assert len(await made(world, run_id)) == 2
            assert await ends_of(world, run_id) == ["run.created", "run.completed"]


@pytest.mark.postgresql_only("SQLite has one process")
async def test_two_processes_that_receive_the_ends_of_two_steps_at_once_begin_their_dependent_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world_with_actions(tmp_path) as world, another(world) as other:
        run_id = await begin(world, step("a", sandbox=HELD), step("b", sandbox=HELD), step("c", "a", "b"))
        run = await until_steps(world, run_id, a="processing", b="processing")
        meet_before_the_lock(monkeypatch)
        answers = await asyncio.gather(
            complete(world, step_of(run, "a")["job_id"]), complete(other, step_of(run, "b")["job_id"])
        )
        assert [answer.status_code for answer in answers] == [200, 200]
        assert (await ended(world, run_id))["status"] == "completed"
        assert len(await made(world, run_id)) == 3
        assert await ends_of(world, run_id) == ["run.created", "run.completed"]


def meet_before_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the next two transactions that lock a run request the lock at the same time."""
    barrier, first_two = asyncio.Barrier(2), iter(range(2))

    async def lock_together(*arguments: Any) -> Any:
        if next(first_two, None) is not None:
            async with asyncio.timeout(20):
                await barrier.wait()
        return await lock_runs(*arguments)

    monkeypatch.setattr(advance, "lock_runs", lock_together)


@asynccontextmanager
async def another(world: World) -> AsyncIterator[World]:
    """Run a second service on the world's database."""
    with bound() as listening:
        other = World(world.folder, listening.getsockname()[1], world.environment, world.subscriber)
        app = create_app(world.settings, master_keys(world.settings))
        async with other.api, other.provider, served(app, listening):
            yield other


async def complete_at_both(world: World, other: World, *task_ids: str) -> None:
    """Post the webhooks that complete these tasks to both services at once."""
    answers = await asyncio.gather(*(complete(each, task_id) for task_id in task_ids for each in (world, other)))
    assert {answer.status_code for answer in answers} == {200}


async def complete(world: World, task_id: str) -> httpx.Response:
    """Post the webhook that completes a step's task to a service; return the response."""
    return await report(world, task_id, "completed", output={"campaign_id": f"of {task_id}"})
