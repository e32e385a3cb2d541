"""What creates of runs and the end of a step send to PostgreSQL, and what is done where something changed meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from models import EventType, TaskStatus
from receiver.storage.postgresql.one_statement import MARK
from receiver.storage.tables import deliveries, events, tasks
from tests.fakes.databases import outside, settings_in
from tests.fakes.sent_statements import cut, statements
from tests.integration.harness import tracking
from tests.integration.run_harness import RunHarness
from tests.storage.optimistic_batches import counted, counts

pytestmark = pytest.mark.postgresql_only("counts round trips")


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[RunHarness]:
    with capture_logs():
        async with tracking(tmp_path) as harness:
            yield RunHarness(harness)


async def under_way(harness: RunHarness) -> tuple[str, str]:
    """Begin a run of two steps, the first of which the provider has; return its id and that of the first task."""
    run = await harness.begin("a", "b")
    await harness.act_on(run)
    return run, (await harness.step(run, "a"))["task_uid"]


async def has_begun(harness: RunHarness, run: str) -> None:
    """Look at all that follows from the end of the first step."""
    first, second = await harness.step(run, "a"), await harness.step(run, "b")
    assert (first["status"], second["status"]) == ("completed", "queued")
    read = harness.tracking.database.read
    (task,) = await read(select(tasks.c.id, tasks.c.uid, tasks.c.step).where(tasks.c.uid == second["task_uid"]))
    assert task["step"] == "b"
    created = select(events).where(events.c.task_id == task["id"])
    (event,) = await read(created)
    assert (event["type"], event["run_uid"]) == (EventType.TASK_CREATED, run)
    told = await read(select(deliveries.c.task_id, deliveries.c.event_id).where(deliveries.c.task_id == task["id"]))
    assert told == [{"task_id": task["id"], "event_id": event["id"]}]


async def test_the_end_of_a_step_is_two_reads_and_one_statement(
    harness: RunHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.tracking.subscribe(event_types=[EventType.TASK_CREATED, EventType.RUN_COMPLETED])
    run, uid = await under_way(harness)
    stored = counts()["stored"]
    sent = statements(monkeypatch)
    await harness.tracking.receive(TaskStatus.COMPLETED, uid, output={"image_url": "u"})
    monkeypatch.undo()
    assert [query.startswith(MARK) for query in sent] == [False, False, True]
    assert counts()["stored"] == stored + 1
    await has_begun(harness, run)
    # The end of the last step ends the run.
    await harness.act_on(run, "b")
    last = (await harness.step(run, "b"))["task_uid"]
    sent = statements(monkeypatch)
    await harness.tracking.receive(TaskStatus.COMPLETED, last, output={"image_url": "u"}, provider_task_id="pt-2")
    monkeypatch.undo()
    assert [query.startswith(MARK) for query in sent] == [False, False, True]
    assert (await harness.runs.run(1, run))["status"] == "completed"
    *_, ended = await harness.tracking.events()
    assert (ended["type"], ended["task_id"]) == (EventType.RUN_COMPLETED, None)


async def test_a_run_that_changed_since_it_was_read_is_advanced_with_locks(
    harness: RunHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await harness.tracking.subscribe(event_types=[EventType.TASK_CREATED])
    run, uid = await under_way(harness)
    changed, url = counts()["changed"], settings_in(tmp_path).database_url

    async def change(_: asyncpg.Connection) -> None:
        with outside(url) as server:
            server.execute("UPDATE run SET trace_context = 'of another process'")

    sent = statements(monkeypatch, change)
    await harness.tracking.receive(TaskStatus.COMPLETED, uid, output={"image_url": "u"})
    monkeypatch.undo()
    assert counts()["changed"] == changed + 1
    assert sent[-1] == "COMMIT"
    await has_begun(harness, run)
    (trace,) = {
        row["trace_context"] for row in await harness.tracking.database.read(select(tasks).where(tasks.c.step == "b"))
    }
    assert trace == "of another process"


async def test_a_run_that_another_session_has_locked_is_waited_for(
    harness: RunHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await harness.tracking.subscribe(event_types=[EventType.TASK_CREATED])
    run, uid = await under_way(harness)
    changed = counts()["changed"]
    with outside(settings_in(tmp_path).database_url) as server:

        async def lock(_: asyncpg.Connection) -> None:
            server.execute("BEGIN")
            server.execute("SELECT FROM run FOR UPDATE")

        statements(monkeypatch, lock)
        begin = asyncpg.Connection.execute

        async def free(self: asyncpg.Connection, query: str, *rest: Any, **options: Any) -> Any:
            if query.startswith("BEGIN"):
                server.execute("ROLLBACK")
            return await begin(self, query, *rest, **options)

        monkeypatch.setattr(asyncpg.Connection, "execute", free)
        await harness.tracking.receive(TaskStatus.COMPLETED, uid, output={"image_url": "u"})
        monkeypatch.undo()
    assert counts()["changed"] == changed + 1
    await has_begun(harness, run)


async def test_an_end_whose_answer_is_lost_is_found_with_the_keys_of_the_next_task(
    harness: RunHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await harness.tracking.subscribe(event_types=[EventType.TASK_CREATED])
    run, uid = await under_way(harness)
    cut(settings_in(tmp_path).database_url, monkeypatch, "after")
    await harness.tracking.receive(TaskStatus.COMPLETED, uid, output={"image_url": "u"})
    await has_begun(harness, run)


async def test_creates_of_runs_are_one_read_and_one_statement(
    harness: RunHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.tracking.subscribe(event_types=[EventType.RUN_CREATED, EventType.TASK_CREATED])
    sent = statements(monkeypatch)
    with counted(stored=1):
        runs = await asyncio.gather(harness.begin("a", "b"), harness.begin("a"), harness.begin("c", "d", "e"))
    monkeypatch.undo()
    assert [query.startswith(MARK) for query in sent] == [False, True]
    await has_first_task(harness, runs)
    assert len(await harness.tracking.deliveries()) == 6


async def test_runs_tasks_and_the_end_of_a_step_are_two_reads_and_one_statement(
    harness: RunHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.tracking.subscribe(event_types=[EventType.TASK_CREATED])
    run, uid = await under_way(harness)
    sent = statements(monkeypatch)
    with counted(stored=1):
        alone, other, _ = await asyncio.gather(
            harness.tracking.create(),
            harness.begin("a", "b"),
            harness.tracking.receive(TaskStatus.COMPLETED, uid, output={"image_url": "u"}),
        )
    monkeypatch.undo()
    assert [query.startswith(MARK) for query in sent] == [False, False, True]
    await has_begun(harness, run)
    await has_first_task(harness, [other])
    task = await harness.tracking.task(alone)
    assert (task["run_uid"], task["step"]) == (None, None)
    created = [row["task_id"] for row in await harness.tracking.events() if row["type"] == EventType.TASK_CREATED]
    assert sorted(created) == [row["id"] for row in await harness.tracking.tasks()]


async def test_a_run_whose_answer_is_lost_is_found(
    harness: RunHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await harness.tracking.subscribe(event_types=[EventType.RUN_CREATED, EventType.TASK_CREATED])
    cut(settings_in(tmp_path).database_url, monkeypatch, "after")
    await has_first_task(harness, [await harness.begin("a", "b")])


async def has_first_task(harness: RunHarness, runs: Sequence[str]) -> None:
    """Look at what a new run consists of: its steps, the task of the first one, two events and their deliveries."""
    tracking = harness.tracking
    for run in runs:
        (event, created) = [row for row in await tracking.events() if row["run_uid"] == run]
        assert [row["type"] for row in (event, created)] == [EventType.RUN_CREATED, EventType.TASK_CREATED]
        steps = (await harness.runs.run(1, run))["steps"]
        assert [step["status"] for step in steps] == ["queued", *["pending"] * (len(steps) - 1)]
        assert [step["position"] for step in steps] == list(range(len(steps)))
        task = await tracking.task(steps[0]["task_uid"])
        assert (task["run_uid"], task["step"]) == (run, steps[0]["name"])
        assert (event["task_id"], created["task_id"]) == (None, task["id"])
    task_of = {row["id"]: row["task_id"] for row in await tracking.events()}
    told = await tracking.deliveries()
    assert told
    assert all(row["task_id"] == task_of[row["event_id"]] for row in told)
    assert {each.id for each in tracking.dispatcher.handed} == {row["id"] for row in told}
