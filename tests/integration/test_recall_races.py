"""Another process changes the tasks of a run that is cancelled: whichever commits first, no more is sent or tried."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from models import Submission, TaskStatus
from receiver.domain import advance as rules
from receiver.errors import Conflict
from receiver.runs.changes import Asked
from receiver.storage.leases import Intent, mark_sending
from receiver.storage.postgresql import connection
from receiver.storage.transaction import Transaction
from tests.fakes.databases import outside
from tests.integration.harness import arrival, tracking
from tests.integration.run_harness import RunHarness

pytestmark = pytest.mark.postgresql_only("SQLite has one process")

_WAITING_FOR_A_LOCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
Work = Callable[[Transaction], Awaitable[Any]]


class TwoProcesses:
    """Two writers on one database: what `first` writes is held before its commit until `second` waits for a lock."""

    def __init__(self, first: RunHarness, second: RunHarness) -> None:
        self.first, self.second = first, second
        self.tries = 0

    async def race(self, held: Work, then: Awaitable[Any], *, after_lock_of: str | None = None) -> tuple[Any, Any]:
        """Run `held` in a transaction of the first process, `then` in the second; return both results.

        With `after_lock_of` the first process only locks that task before the second begins to wait, and runs `held`
        afterwards.
        """
        entered, waiting = asyncio.Event(), asyncio.Event()

        async def work(tx: Transaction) -> Any:
            self.tries += 1
            result = await (held(tx) if after_lock_of is None else tx.load_tasks([after_lock_of]))
            entered.set()
            await waiting.wait()
            return result if after_lock_of is None else await held(tx)

        async with asyncio.timeout(30):
            first = asyncio.create_task(self.first.tracking.database.writer.run(work))
            await entered.wait()
            second = asyncio.ensure_future(then)
            await self.waits_for_a_lock()
            waiting.set()
            return await first, await second

    async def waits_for_a_lock(self) -> None:
        """Wait until a session waits for a lock."""
        while True:
            with outside(self.first.tracking.url) as database:
                if database.execute(_WAITING_FOR_A_LOCK).fetchone()[0]:
                    return
            await asyncio.sleep(0.01)

    def cancel(self, run: str) -> Work:
        """Return the cancel of a run as work of the first process."""

        async def work(tx: Transaction) -> Any:
            return (await self.first.runs._changer.apply(tx, [Asked(1, run, rules.cancel)]))[0]

        return work

    def receive(self, status: TaskStatus, uid: str) -> Work:
        """Return a webhook's update as work of the first process."""

        async def work(tx: Transaction) -> Any:
            return (await self.first.tracking.applier.apply(tx, [arrival(status, uid)]))[0]

        return work

    def intend(self, uid: str) -> Work:
        """Return the intent to send a task as work of the first process."""

        async def work(tx: Transaction) -> Any:
            return (await mark_sending(tx, [Intent(uid, 1, 60.0)]))[0]

        return work


@pytest.fixture
async def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TwoProcesses]:
    # The service sets a write apart, and tries it again, that waits for longer than the first process is held here when
    # the machine is busy. Only a deadlock is to be tried again.
    monkeypatch.setitem(connection._SETTINGS, "lock_timeout", "30s")
    with capture_logs():
        async with tracking(tmp_path) as first, tracking(tmp_path) as second:
            yield TwoProcesses(RunHarness(first), RunHarness(second))


async def test_a_step_that_begins_while_its_run_is_cancelled_is_cancelled_too(two: TwoProcesses) -> None:
    run = await two.first.begin("a", "b", "c")
    await two.first.act_on(run)
    uid = (await two.first.task(run))["uid"]
    _, steps = await two.race(two.receive(TaskStatus.COMPLETED, uid), two.second.cancel(run))
    assert steps == {"a": "completed", "b": "cancelled", "c": "cancelled"}
    assert (await two.first.task(run, "b"))["status"] == TaskStatus.CANCELLED


async def test_an_attempt_that_begins_while_its_run_is_cancelled_is_cancelled(two: TwoProcesses) -> None:
    run = await two.first.sent()
    uid = (await two.first.task(run))["uid"]
    _, steps = await two.race(two.receive(TaskStatus.FAILED, uid), two.second.cancel(run))
    task = await two.first.task(run)
    assert (steps, task["status"], task["attempt"]) == ({"a": "cancelled"}, TaskStatus.CANCELLED, 2)


async def test_a_failure_that_arrives_while_its_run_is_cancelled_begins_no_other_attempt(two: TwoProcesses) -> None:
    run = await two.first.sent()
    uid = (await two.first.task(run))["uid"]
    await two.race(two.cancel(run), two.second.tracking.receive(TaskStatus.FAILED, uid))
    task = await two.first.task(run)
    assert (task["status"], task["attempt"]) == (TaskStatus.FAILED, 1)


async def test_an_intent_that_is_written_while_its_run_is_cancelled_is_refused(two: TwoProcesses) -> None:
    run = await two.first.begin("a")
    intent = Intent((await two.first.task(run))["uid"], 1, 60.0)
    intend = two.second.tracking.database.writer.write(mark_sending, intent)
    assert (await two.race(two.cancel(run), intend))[1] is False


async def test_a_step_whose_intent_is_committed_first_is_recalled(two: TwoProcesses) -> None:
    run = await two.first.begin("a")
    uid = (await two.first.task(run))["uid"]
    is_intended, steps = await two.race(two.intend(uid), two.second.cancel(run))
    task = await two.first.task(run)
    assert (is_intended, steps, task["submission"]) == (True, {"a": "queued"}, Submission.SENDING)
    assert (task["cancel_requested_at"] is None, task["leased"]) == (False, True)


async def test_a_cancel_that_waits_for_a_task_does_not_hold_its_run(two: TwoProcesses) -> None:
    run = await two.first.sent()
    uid = (await two.first.task(run))["uid"]

    changer, cancels = two.second.runs._changer, list[str]()
    apply = changer.apply

    async def apply_and_count(tx: Transaction, asked: Sequence[Asked]) -> Any:
        cancels.extend(each.uid for each in asked)
        return await apply(tx, asked)

    changer.apply = apply_and_count  # type: ignore[method-assign]
    # The update goes on to lock the run: a deadlock, after which one of the two is tried again, if the cancel held it.
    cancelling = asyncio.gather(two.second.cancel(run), return_exceptions=True)
    _, (refusal,) = await two.race(two.receive(TaskStatus.COMPLETED, uid), cancelling, after_lock_of=uid)
    assert (two.tries, cancels) == (1, [run])
    assert isinstance(refusal, Conflict)
