"""A task that no code can act on fails after a bounded number of tries, with the reason in its error."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from models import EventType, Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.updates import ProviderUpdate, Source
from receiver.errors import StorageUnavailable
from receiver.providers import CancelOutcome, FetchOutcome, Found, History, NewTask, ProviderTask, SubmitOutcome
from receiver.storage.tables import tasks
from receiver.telemetry.metrics import task_exceptions
from receiver.workers.task_worker import TaskWorker
from tests.fakes.inbound import SILENT
from tests.fakes.world import in_process
from tests.integration.harness import KEYRING, LEASE, BaseFakeProvider, TrackingHarness, tracking

TRIES = 8


class BrokenProvider(BaseFakeProvider):
    """A provider whose adapter raises an exception in every call, until `outcome` is set."""

    def __init__(self) -> None:
        self.error: Exception = AttributeError("'str' object has no attribute 'get'")
        self.outcome: FetchOutcome | None = None
        self.calls = 0
        self.called = asyncio.Event()

    async def submit(self, task: NewTask, **_: Any) -> SubmitOutcome:
        raise self._raised()

    async def fetch(self, task: ProviderTask, **_: Any) -> FetchOutcome:
        if self.outcome is not None:
            return self.outcome
        raise self._raised()

    async def cancel(self, task: ProviderTask, **_: Any) -> CancelOutcome:
        raise self._raised()

    async def history(self, **_: Any) -> History:
        raise self._raised()

    def _raised(self) -> Exception:
        self.calls += 1
        self.called.set()
        return self.error


class Broken:
    """A worker that acts on tasks with a broken adapter; between its tries no time has to pass."""

    def __init__(self, harness: TrackingHarness) -> None:
        self.tracking = harness
        self.provider = BrokenProvider()
        self.due = harness.applier.after_commit.due
        _, poller = harness.calling(self.provider)
        self.worker = TaskWorker(harness.database.writer, poller, self.due, lease_seconds=LEASE)

    async def set(self, uid: str, **values: Any) -> None:
        await self.tracking.database.writer.run(
            lambda tx: tx.execute(update(tasks).where(tasks.c.uid == uid).values(values))
        )

    async def act(self, uid: str) -> dict[str, Any]:
        """Let the worker act on the task once; return its row when that has been written."""
        await self.set(uid, due_at=utc_now(), leased=False)
        before = await self.tracking.task(uid)
        running = asyncio.create_task(self.worker.run())
        try:
            async with asyncio.timeout(10):
                while (row := await self.tracking.task(uid))["leased"] or row["due_at"] == before["due_at"]:
                    continue
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self.worker.drain(10)
        return row


@pytest.fixture
async def broken(tmp_path: Path) -> AsyncIterator[Broken]:
    with capture_logs():
        async with tracking(tmp_path) as harness:
            yield Broken(harness)


async def waiting(broken: Broken) -> str:
    uid = await broken.tracking.create()
    await broken.set(uid, submission=Submission.WAITING)
    return uid


async def polled(broken: Broken) -> str:
    uid = await broken.tracking.create()
    await broken.tracking.receive(TaskStatus.PROCESSING, uid)
    return uid


async def unknown(broken: Broken) -> str:
    uid = await broken.tracking.create()
    await broken.set(uid, submission=Submission.UNKNOWN)
    return uid


@pytest.mark.parametrize("prepare", [waiting, polled, unknown])
async def test_an_exception_at_every_try_fails_the_task_after_a_bounded_number(broken: Broken, prepare: Any) -> None:
    uid = await prepare(broken)
    for number in range(1, TRIES):
        row = await broken.act(uid)
        assert (row["status"] in (TaskStatus.FAILED, TaskStatus.COMPLETED), row["exception_count"]) == (False, number)
        assert utc_now() < row["due_at"] <= utc_now() + timedelta(seconds=61)
    row = await broken.act(uid)
    assert (row["status"], row["error"]["code"]) == (TaskStatus.FAILED, "internal_error")
    is_looked_at_again = row["due_at"] is not None
    assert is_looked_at_again == (prepare is not waiting)  # what was never sent is not at the provider
    assert "AttributeError" in row["error"]["message"]
    assert (await broken.tracking.types())[-1] == EventType.TASK_FAILED
    assert broken.provider.calls == TRIES


async def test_the_traceback_is_logged_once_and_each_exception_is_counted(tmp_path: Path) -> None:
    counter = task_exceptions.labels("piapi")
    before = counter._value.get()
    with capture_logs() as records:
        async with tracking(tmp_path) as harness:
            broken = Broken(harness)
            uid = await polled(broken)
            for _ in range(TRIES):
                await broken.act(uid)
    of_task = [record for record in records if record.get("task_id") == uid]
    assert [record["log_level"] for record in of_task if "exc_info" in record] == ["error"]
    assert [record["event"] for record in of_task[-2:]] == ["task failed by Ringback", "task ended"]
    assert of_task[-1]["error_code"] == "internal_error"
    assert counter._value.get() - before == TRIES


async def test_after_its_time_out_the_first_exception_fails_a_task(broken: Broken) -> None:
    uid = await polled(broken)
    await broken.set(uid, last_update_at=utc_now() - timedelta(days=2))
    row = await broken.act(uid)
    assert (row["status"], row["error"]["code"]) == (TaskStatus.FAILED, "internal_error")


async def test_a_poll_that_works_forgets_earlier_exceptions(broken: Broken) -> None:
    uid = await polled(broken)
    await broken.act(uid)
    broken.provider.outcome = Found(
        ProviderUpdate(source=Source.POLL, status=TaskStatus.PROCESSING, provider_task_id="pt-1", attempt=1)
    )
    row = await broken.act(uid)
    assert (row["status"], row["exception_count"]) == (TaskStatus.PROCESSING, 0)


async def test_the_text_of_the_exception_is_not_in_the_error(broken: Broken) -> None:
    uid = await polled(broken)
    secret = KEYRING.hook_secret(uid)
    broken.provider.error = ValueError(f"odd field: {secret}")
    await broken.set(uid, last_update_at=utc_now() - timedelta(days=2))
    row = await broken.act(uid)
    assert "ValueError" in row["error"]["message"]
    assert "odd field" not in row["error"]["message"]


async def test_an_unavailable_database_is_not_the_tasks_fault(broken: Broken) -> None:
    uid = await polled(broken)
    broken.provider.error = StorageUnavailable("the database is restarting")
    await broken.set(uid, due_at=utc_now(), leased=False)
    running = asyncio.create_task(broken.worker.run())
    async with asyncio.timeout(10):
        await broken.provider.called.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await broken.worker.drain(10)
    row = await broken.tracking.task(uid)
    assert (row["exception_count"], row["status"]) == (0, TaskStatus.PROCESSING)


async def test_an_exception_while_a_create_is_sent_is_logged_and_the_client_gets_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> SubmitOutcome:
        raise AttributeError("odd answer")

    monkeypatch.setattr("receiver.providers.piapi.adapter.submit_outcome", broken)
    with capture_logs() as records:
        async with in_process(tmp_path) as world:
            answer = await world.create(SILENT)
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "pending")
    (logged,) = [record for record in records if record["event"] == "submitting failed"]
    assert logged["task_id"] == answer.json()["data"]["task_id"]
    assert isinstance(logged["exc_info"], AttributeError)
