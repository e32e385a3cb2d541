"""What the statements that advance runs promise on both databases."""

from datetime import timedelta
from typing import Any

import orjson
import pytest

from models import RunStatus, StepStatus
from receiver.domain.ids import new_id
from receiver.storage.database import Database
from receiver.storage.run_rows import CHANGING_STEP_COLUMNS, RUN_COLUMNS, STEP_COLUMNS
from tests.storage.rows import NOW, add_organization

LATER = NOW + timedelta(seconds=1)
SPEC = {"step": {"id": "ü ☃ 😀", "input": {"nested": [{"a": None}, 1.5]}}, "action": {}}
ENDED: dict[str, Any] = {
    "status": StepStatus.COMPLETED,
    "task_uid": new_id(),
    "result": {"image_url": "u", "nested": [{"a": None}, 1.5, -(2**53)]},
    "error": {"code": "c", "message": 'ü ☃ 😀 \\ " \n'},
    "started_at": NOW,
    "completed_at": LATER,
}


@pytest.fixture(autouse=True)
async def _organization(database: Database) -> None:
    assert await add_organization(database) == 1


def step_row(position: int, **fields: Any) -> dict[str, Any]:
    """Return a step as one is inserted."""
    given = {"position": position, "name": f"s{position}", "status": StepStatus.PENDING, "spec": SPEC, **fields}
    return {**dict.fromkeys(STEP_COLUMNS), **given}


def run_row(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a run as one is inserted."""
    given = {"uid": new_id(), "organization_id": 1, "status": RunStatus.PENDING, "created_at": NOW, "updated_at": NOW}
    return {**dict.fromkeys(RUN_COLUMNS), **given, **fields, "steps": list(steps)}


async def locked(database: Database, *uids: str) -> list[dict[str, Any]]:
    """Return runs as they are locked, the documents of their steps decoded."""
    found = await database.writer.run(lambda tx: tx.lock_runs(uids))
    for run in found:
        for step in run["steps"]:
            step["spec"] = orjson.loads(step["spec"])
    return found


async def test_runs_are_inserted_with_their_own_steps_and_locked_in_the_order_of_their_keys(database: Database) -> None:
    first = run_row(step_row(0), step_row(1, **ENDED), metadata={"customer": "7"}, trace_context="00-a-b-01")
    second = run_row(step_row(1), step_row(0), status=RunStatus.FAILED, ended_at=LATER, ended_event=new_id())
    third = run_row(step_row(0))
    await database.writer.run(lambda tx: tx.insert_runs([first, second]))
    await database.writer.run(lambda tx: tx.insert_runs([third]))
    found = await locked(database, third["uid"], second["uid"], new_id(), first["uid"])
    assert [run["uid"] for run in found] == [first["uid"], second["uid"], third["uid"]]
    assert sorted({run["id"] for run in found}) == [run["id"] for run in found]
    (uid,) = {run.pop("organization_uid") for run in found}
    assert len(uid) == len(new_id())
    second["steps"].reverse()  # they come in the order of their positions
    for given, run in zip((first, second, third), found, strict=True):
        assert {step["run_id"] for step in run["steps"]} == {run["id"]}
        expected = [
            {**wanted, "id": step["id"], "run_id": run["id"]}
            for wanted, step in zip(given["steps"], run["steps"], strict=True)
        ]
        assert run == {**given, "id": run["id"], "steps": expected}
    assert await locked(database) == []


async def test_only_what_may_change_of_a_run_and_its_steps_is_written(database: Database) -> None:
    one, other = run_row(step_row(0), step_row(1)), run_row(step_row(0))
    await database.writer.run(lambda tx: tx.insert_runs([one, other]))
    run, untouched = await locked(database, one["uid"], other["uid"])
    changed = {**run, "status": RunStatus.FAILED, "ended_at": LATER, "ended_event": new_id()}
    step = {**run["steps"][1], **ENDED}
    ignored: dict[str, Any] = {"metadata": {"not": "written"}, "trace_context": "neither"}
    await database.writer.run(lambda tx: tx.write_runs([{**changed, **ignored}], [{**step, "name": "no"}], LATER))
    expected = {**changed, "updated_at": LATER, "steps": [run["steps"][0], step]}
    assert await locked(database, one["uid"], other["uid"]) == [expected, untouched]


async def test_what_a_retry_resets_is_written_as_null(database: Database) -> None:
    given = run_row(step_row(0, **ENDED), ended_at=LATER, ended_event=new_id())
    await database.writer.run(lambda tx: tx.insert_runs([given]))
    (run,) = await locked(database, given["uid"])
    reset = {**run["steps"][0], **dict.fromkeys(CHANGING_STEP_COLUMNS), "status": StepStatus.PENDING}
    again = {**run, "ended_at": None, "ended_event": None}
    await database.writer.run(lambda tx: tx.write_runs([again], [reset], LATER))
    assert await locked(database, given["uid"]) == [{**again, "updated_at": LATER, "steps": [reset]}]


async def test_steps_and_runs_may_be_written_without_the_others(database: Database) -> None:
    given = run_row(step_row(0))
    await database.writer.run(lambda tx: tx.insert_runs([given]))
    (run,) = await locked(database, given["uid"])
    step = {**run["steps"][0], **ENDED}
    await database.writer.run(lambda tx: tx.write_runs([], [step], LATER))
    assert await locked(database, given["uid"]) == [{**run, "steps": [step]}]
    await database.writer.run(lambda tx: tx.write_runs([{**run, "status": RunStatus.COMPLETED}], [], LATER))
    expected = {**run, "status": RunStatus.COMPLETED, "updated_at": LATER, "steps": [step]}
    assert await locked(database, given["uid"]) == [expected]
