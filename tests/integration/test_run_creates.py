"""Creating runs: those that wait for one commit are inserted together, each with its own steps, task and events."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from receiver.domain.graph import Graph, StepSpec
from receiver.domain.ids import new_id
from receiver.runs import advance
from receiver.runs.service import RunRequest
from receiver.storage.runs import insert_runs
from tests.integration.harness import tracking
from tests.integration.run_harness import RunHarness


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[RunHarness]:
    async with tracking(tmp_path) as found:
        yield RunHarness(found)


async def test_runs_of_one_commit_are_inserted_by_the_same_statements(
    harness: RunHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    inserted: list[int] = []

    async def counting(tx: Any, new: Sequence[Any]) -> None:
        inserted.append(len(new))
        await insert_runs(tx, new)

    monkeypatch.setattr(advance, "insert_runs", counting)
    uids = await asyncio.gather(harness.begin("a", "b"), harness.begin("c"), harness.begin("d", "e", "f"))
    assert inserted == [3]
    runs = [await harness.runs.run(1, uid) for uid in uids]
    assert [[(step["name"], step["status"]) for step in run["steps"]] for run in runs] == [
        [("a", "queued"), ("b", "pending")],
        [("c", "queued")],
        [("d", "queued"), ("e", "pending"), ("f", "pending")],
    ]
    assert [run["status"] for run in runs] == ["in_progress"] * 3
    first = {run["uid"]: run["steps"][0]["task_uid"] for run in runs}
    assert {task["run_uid"]: task["uid"] for task in await harness.tracking.tasks()} == first
    events = [(event["type"], event["run_uid"]) for event in await harness.tracking.events()]
    assert sorted(events) == sorted((kind, uid) for kind in ("run.created", "task.created") for uid in uids)
    created = [event for event in await harness.tracking.events() if event["type"] == "run.created"]
    assert {step["status"] for event in created for step in event["snapshot"]["steps"]} == {"pending"}


async def test_a_run_that_cannot_be_inserted_keeps_none_of_the_others_from_it(harness: RunHarness) -> None:
    taken = await harness.begin("a")
    graph = Graph((StepSpec(id="a", action="flux:txt2img"),))
    organization = harness.tracking.organization_uid
    requests = [
        RunRequest(
            uid=uid, organization_id=1, organization_uid=organization, graph=graph, request_id=f"request-{number}"
        )
        for number, uid in enumerate((new_id(), taken, new_id()))
    ]
    outcomes = await asyncio.gather(*map(harness.runs.create, requests), return_exceptions=True)
    assert (outcomes[0], outcomes[2]) == (None, None)
    assert isinstance(outcomes[1], sqlite3.IntegrityError | asyncpg.UniqueViolationError)
    events = [event for event in await harness.tracking.events() if event["run_uid"] != taken]
    kinds = ("run.created", "task.created")
    assert [(event["type"], event["run_uid"], event["request_id"]) for event in events] == [
        (kind, each.uid, each.request_id) for each in (requests[0], requests[2]) for kind in kinds
    ]
