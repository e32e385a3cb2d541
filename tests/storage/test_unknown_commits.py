"""A commit whose answer is missing: what its callers are told, what waits, and that the writer goes on."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import select, text, update

from models import Submission, TaskStatus
from receiver.errors import OutcomeUnknown, StorageUnavailable
from receiver.storage.database import Database
from receiver.storage.leases import Intent, mark_sending
from receiver.storage.postgresql import connection
from receiver.storage.tables import tasks
from receiver.storage.transaction import TaskClaim, Transaction
from tests.fakes.databases import outside, settings_in
from tests.fakes.held_commits import end_held_commits, held_commits
from tests.storage.rows import NOW, add_organization, add_subscription, add_tasks, new_delivery, new_event, task_row

pytestmark = pytest.mark.postgresql_only("an answer can only get lost between two processes")

LATER = NOW.replace(hour=5)


@pytest.fixture(autouse=True)
async def _organization(database: Database) -> None:
    await add_organization(database)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report the outcome of a held commit as unknown soon."""
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.5)


held = pytest.mark.usefixtures("impatient")


class Notice:
    """A task that is inserted with a call after the commit, which sets `told`."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def work(self, tx: Transaction) -> list[int]:
        tx.after_commit.append(self.told.set)
        return await tx.insert_tasks([task_row()])


async def unknown(database: Database, work: Any) -> OutcomeUnknown:
    with pytest.raises(OutcomeUnknown) as caught:
        await database.writer.run(work)
    return caught.value


async def known(error: OutcomeUnknown) -> Any:
    assert error.later is not None
    async with asyncio.timeout(20):
        return await error.later


async def keys(database: Database) -> list[int]:
    return [row["id"] for row in await database.read(select(tasks.c.id))]


@held
async def test_a_held_commit_is_unknown_until_it_is_on_disk_and_what_depends_on_it_waits(
    database: Database, url: str
) -> None:
    notice = Notice()
    with held_commits(url):
        error = await unknown(database, notice.work)
        assert (error.status, error.code, error.is_pending) == (504, "outcome_unknown", True)
        await add_subscription(database)  # the writer continues
        assert not notice.told.is_set()
        assert await keys(database) == []
    assert await known(error) == await keys(database)
    assert notice.told.is_set()


@held
async def test_a_held_commit_that_comes_to_nothing_is_reported_as_not_stored(database: Database, url: str) -> None:
    notice = Notice()
    with held_commits(url):
        error = await unknown(database, notice.work)
        end_held_commits(url)
        with pytest.raises(StorageUnavailable, match="nothing was stored"):
            await known(error)
    assert not notice.told.is_set()
    assert await keys(database) == []


@held
async def test_only_a_few_commits_may_be_held_and_then_nothing_is_begun(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_MOST_LOST", 2)
    with held_commits(url):
        errors = [await unknown(database, Notice().work) for _ in range(2)]
        with pytest.raises(StorageUnavailable, match="not confirmed 2 earlier writes"):
            await database.writer.run(Notice().work)
    for error in errors:
        await known(error)
    assert len(await keys(database)) == 2
    await database.writer.run(Notice().work)


@held
async def test_outcomes_that_are_not_known_when_the_service_stops_are_given_up(url: str, tmp_path: Path) -> None:
    with held_commits(url):
        async with await Database.open(settings_in(tmp_path)) as stopping:
            error = await unknown(stopping, Notice().work)
        assert error.later is not None
        assert error.later.cancelled()


def cut_at_commit(url: str, monkeypatch: pytest.MonkeyPatch, *, is_committed: bool) -> None:
    """Cut the next connection that sends COMMIT, after or before the server has executed it."""
    execute = asyncpg.Connection.execute

    async def commit_and_lose(self: asyncpg.Connection, query: str, *rest: Any, **options: Any) -> str:
        if query != "COMMIT":
            return str(await execute(self, query, *rest, **options))
        monkeypatch.undo()
        if is_committed:
            await execute(self, query)
        with outside(url) as server:
            server.execute("SELECT pg_terminate_backend(?, 5000)", (self.get_server_pid(),))
        return str(await execute(self, "SELECT 1"))

    monkeypatch.setattr(asyncpg.Connection, "execute", commit_and_lose)


async def test_an_intent_whose_commit_was_cut_is_found_by_its_token(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = task_row(status=TaskStatus.QUEUED, submission=Submission.WAITING)
    await add_tasks(database, row)
    intent = Intent(row["uid"], 1, 60.0)
    cut_at_commit(url, monkeypatch, is_committed=True)
    assert await database.writer.run(lambda tx: mark_sending(tx, [intent])) == [True]
    (stored,) = await database.read(select(tasks.c.submission, tasks.c.submit_token))
    assert stored == {"submission": Submission.SENDING, "submit_token": intent.token}


async def test_an_intent_that_was_lost_is_not_taken_for_ours(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = task_row(status=TaskStatus.QUEUED, submission=Submission.WAITING)
    await add_tasks(database, row)
    cut_at_commit(url, monkeypatch, is_committed=False)
    with pytest.raises(OutcomeUnknown) as caught:  # another process could have replaced the token since
        await database.writer.run(lambda tx: mark_sending(tx, [Intent(row["uid"], 1, 60.0)]))
    assert not caught.value.is_pending
    (stored,) = await database.read(select(tasks.c.submission, tasks.c.submit_token))
    assert stored == {"submission": Submission.WAITING, "submit_token": None}


@pytest.mark.parametrize("kind", ["polls", "unsent", "deliveries"])
async def test_a_claim_whose_commit_was_cut_is_found_by_its_lease(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    submission = Submission.WAITING if kind == "unsent" else Submission.ACCEPTED
    (key,) = await add_tasks(database, task_row(due_at=NOW, submission=submission))
    subscription = await add_subscription(database)
    (event,) = await database.writer.run(lambda tx: tx.insert_events([new_event(key)]))
    await database.writer.run(lambda tx: tx.insert_deliveries([new_delivery(subscription, event, key)]))
    cut_at_commit(url, monkeypatch, is_committed=True)

    async def claim(tx: Transaction) -> int:
        if kind == "polls":
            return len((await tx.claim_tasks(TaskClaim(NOW, LATER, polls=10))).tasks)
        if kind == "unsent":
            return len((await tx.claim_tasks(TaskClaim(NOW, LATER, unsent=10))).tasks)
        return len(await tx.claim_deliveries(NOW, LATER, 10, [], of_organization=10, skip_organizations=[]))

    assert await database.writer.run(claim) == 1


async def test_a_transaction_that_leaves_no_evidence_stays_unknown(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_tasks(database, task_row())
    cut_at_commit(url, monkeypatch, is_committed=True)
    error = await unknown(database, lambda tx: tx.execute(update(tasks).values(progress=7)))
    assert not error.is_pending


async def test_a_commit_that_is_a_rollback_is_no_success(database: Database) -> None:
    async def ignore_a_failure(tx: Transaction) -> None:
        await tx.insert_tasks([task_row()])
        with pytest.raises(Exception, match="division by zero"):
            await tx.execute(text("SELECT 1 / 0"))

    with pytest.raises(RuntimeError, match="nothing of it was stored"):
        await database.writer.run(ignore_a_failure)
    assert await keys(database) == []
