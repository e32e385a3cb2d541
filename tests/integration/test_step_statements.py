"""What the end of a step of a run sends to PostgreSQL, and what it does where something changed meanwhile."""

from collections.abc import AsyncIterator
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
from tests.storage.optimistic_batches import counts

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
