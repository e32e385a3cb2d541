"""The report as users get it: from the API and the command line, for tasks, runs, webhooks and callbacks."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from receiver.domain.gaps import MEANINGS, GapKind
from receiver.domain.ids import new_id
from tests.fakes import rows
from tests.fakes.command_line import app
from tests.fakes.world import API_KEY, World, in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

ACTION = "Qubico/flux1-schnell:txt2img"
GOOD: dict[str, Any] = {"id": "first", "action": ACTION, "input": {"prompt": "a cat"}}
BAD: dict[str, Any] = {**GOOD, "input": {"prompt": "x", "sandbox": {"outcome": "failed"}}, "retry": {"max_attempts": 1}}
NEXT: dict[str, Any] = {"id": "second", "action": ACTION, "input": {"prompt": "a dog"}, "depends_on": ["first"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One world for the module, in which every task and run has ended and is delivered."""
    async with in_process(tmp_path_factory.mktemp("world")) as world:
        await world.webhook(event_types=["task.*", "run.*"])
        await world.webhook(filters={"model": "no such model"})
        own = {"webhook_config": {"endpoint": f"{world.subscriber.url}/own", "secret": "a-secret"}}
        made = [await world.created(config=own), await world.created({"outcome": "failed"})]
        for task in made:
            await world.ended(task)
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(world: World) -> list[str]:
    """Runs of two steps that completed, and one that failed."""
    begun = [await begin(world, GOOD, NEXT) for _ in range(5)] + [await begin(world, BAD, NEXT)]
    for run in begun:
        await world.api.get(f"/api/v1/runs/{run}", params={"wait_for_completion": "true"})
    pending = "SELECT id FROM delivery WHERE status = 'pending'"
    await rows.eventually(world, pending, lambda found: not found, seconds=60)
    return begun


async def begin(world: World, *steps: Any) -> str:
    answer = await world.api.post("/api/v1/runs", json={"steps": list(steps)})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["data"]["run_id"])


async def report(world: World, **query: str) -> dict[str, Any]:
    answer = await world.api.get("/api/v1/report", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def command(world: World, *options: str) -> tuple[int, str]:
    """Run `ringback report`; return its exit status and what it printed."""
    environment = {"RINGBACK_URL": world.base, "RINGBACK_API_KEY": API_KEY}
    found = await asyncio.to_thread(CliRunner().invoke, app, ["report", *options], env=environment)
    return found.exit_code, found.stdout


async def test_all_that_the_service_did_adds_up(world: World, runs: list[str]) -> None:
    found = await report(world)
    assert found["gaps"] == {"count": 0, "kinds": []}
    assert found["adds_up"] is True
    by_status = {"completed": 1 + 2 * 5, "failed": 2}
    assert found["tasks"] == {"created": 13, "ended": 13, "open": 0, "by_status": by_status}
    assert found["runs"] == {"created": 6, "ended": 6, "open": 0, "by_status": {"completed": 5, "failed": 1}}
    first, second = sorted(found["deliveries"]["webhooks"]["shown"], key=lambda each: -each["events"])
    assert first["events"] == first["delivered"] == found["events"]["count"]
    assert second["events"] == second["filtered"] + second["unknown"] == 13
    callbacks = found["deliveries"]["callbacks"]
    assert callbacks["events"] == callbacks["delivered"] >= 2
    assert found["is_cut"] is False
    assert found["dead"] == found["overdue_tasks"] == found["overdue_deliveries"] == {"count": 0, "shown": []}


async def test_the_command_prints_the_report_and_exits_0(world: World, runs: list[str]) -> None:
    status, out = await command(world, "--since", "1h")
    assert status == 0
    assert "13 created = 13 ended + 0 open (11 completed, 2 failed)" in out
    assert "everything adds up" in out
    status, out = await command(world, "--json")
    assert (status, json.loads(out)["adds_up"]) == (0, True)


async def test_a_range_that_begins_in_the_future_or_is_no_time_is_refused(world: World) -> None:
    for since in ("2999-01-01", "yesterday"):
        answer = await world.api.get("/api/v1/report", params={"since": since})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "since")
    assert (await command(world, "--since", "yesterday"))[0] == 2
    assert (await report(world, since="1970-01-01"))["is_cut"] is True


async def test_each_gap_of_a_run_is_found_and_the_command_exits_1(world: World, runs: list[str]) -> None:
    no_end, no_creation, still, open_step, differing, _ = runs
    run_s = "(SELECT id FROM run WHERE uid = ?)"
    rows.change(world, "UPDATE run SET ended_event = ? WHERE uid = ?", new_id(), no_end)
    is_creation = "type = 'run.created' AND run_uid = ?"
    rows.change(world, f"UPDATE event SET type = 'run.failed' WHERE {is_creation}", no_creation)
    rows.change(world, "UPDATE run SET status = 'in_progress' WHERE uid = ?", still)
    rows.change(world, f"UPDATE run_step SET status = 'pending' WHERE name = 'first' AND run_id = {run_s}", open_step)
    rows.change(world, f"UPDATE run_step SET status = 'failed' WHERE name = 'first' AND run_id = {run_s}", differing)

    found = await report(world)

    assert found["adds_up"] is False
    assert (found["runs"]["created"], found["runs"]["ended"], found["runs"]["open"]) == (6, 1, 0)
    kinds = {each["kind"]: each for each in found["gaps"]["kinds"]}
    assert {kind: [each["run_id"] for each in listed["shown"]] for kind, listed in kinds.items()} == {
        GapKind.RUN_END_EVENT_MISSING: [no_end],
        GapKind.RUN_CREATED_EVENT_MISSING: [no_creation],
        GapKind.RUN_STANDS_STILL: [still],
        GapKind.RUN_STEP_OPEN: [open_step],
        GapKind.RUN_STEP_DIFFERS: [differing],
    }
    assert all(listed["meaning"] == MEANINGS[GapKind(kind)] for kind, listed in kinds.items())
    status, out = await command(world)
    assert status == 1
    assert "it does not add up" in out
    assert all(run in out for run in runs[:5])


async def test_a_read_key_is_enough_and_no_key_is_refused(world: World) -> None:
    key = (await world.api.post("/api/v1/keys", json={"name": "reads", "scope": "read"})).json()["data"]["key"]
    for headers, status in (({"x-api-key": key}, 200), ({"x-api-key": "none"}, 401)):
        assert (await world.api.get("/api/v1/report", headers=headers)).status_code == status
