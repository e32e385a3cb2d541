"""Claims of tasks, and intents to send them, tried without locks: alone, with others, and when the answer is lost."""

import asyncio

import pytest
from sqlalchemy import select

from models import Submission
from receiver.errors import OutcomeUnknown
from receiver.storage.database import Database
from receiver.storage.leases import Intent, claim_tasks, mark_sending
from receiver.storage.postgresql import connection
from receiver.storage.postgresql.one_statement import MARK
from receiver.storage.tables import tasks
from receiver.storage.transaction import (
    ClaimedTasks,
    TaskClaim,
)
from tests.fakes.held_commits import held_commits
from tests.fakes.sent_statements import cut, statements
from tests.storage.optimistic_batches import Steps, counted, new_task, pending, progress_of, settle
from tests.storage.rows import (
    NOW,
    add_organization,
    add_tasks,
    new_settlement,
    task_row,
)

pytestmark = pytest.mark.postgresql_only("SQLite has one writer, which needs no locks")

LATER = NOW.replace(hour=5)
CLAIM = TaskClaim(NOW, LATER, polls=10, unsent=10)


@pytest.fixture(autouse=True)
async def _organization(database: Database) -> None:
    await add_organization(database)


async def due_tasks(database: Database) -> list[int]:
    """Insert a task to be polled and one to be sent, both due; return their row keys."""
    given = {"submission": Submission.ACCEPTED, "metadata": {"a": "ü"}, "submitted_at": NOW}
    return await add_tasks(database, task_row(due_at=NOW, **given), task_row(due_at=NOW))


def is_of(claimed: ClaimedTasks, keys: list[int]) -> bool:
    found = [(each.state.id, each.queue, each.submitted_at, each.state.metadata) for each in claimed.tasks]
    return found == [(keys[0], None, NOW, {"a": "ü"}), (keys[1], (1, False), None, None)]


async def test_a_claim_of_tasks_is_one_statement(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = await due_tasks(database)
    sent = statements(monkeypatch)
    with counted():
        claimed = await database.writer.write(claim_tasks, CLAIM)
    assert [query.startswith(MARK) for query in sent] == [True]
    assert is_of(claimed, keys)
    rows = await database.read(select(tasks.c.due_at, tasks.c.leased))
    assert {(row["due_at"], row["leased"]) for row in rows} == {(LATER, True)}


async def test_a_claim_is_stored_by_itself_after_the_others_of_its_batch(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription, (key,) = await pending(database, 1)
    uid = await new_task(database)
    kept = await due_tasks(database)
    steps = Steps()
    sent = statements(monkeypatch)
    with counted(stored=1):
        writes = (
            database.writer.write(settle, new_settlement(key, subscription)),
            database.writer.write(claim_tasks, CLAIM),
            database.writer.write(steps.step, uid),
        )
        (is_settled, claimed, progress) = await asyncio.gather(*writes)
    assert [query.startswith(MARK) for query in sent] == [False, True, True]
    assert ["RECURSIVE" in query for query in sent] == [False, False, True]
    assert (is_settled, progress) == (True, 1)
    assert is_of(claimed, kept)


async def test_two_claims_in_one_batch_are_done_in_one_transaction(database: Database) -> None:
    keys = await due_tasks(database)
    first, second = await asyncio.gather(*(database.writer.write(claim_tasks, CLAIM) for _ in range(2)))
    assert is_of(first, keys)
    assert second.tasks == []


async def test_a_claim_comes_by_itself_before_what_needs_locks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await due_tasks(database)
    sent = statements(monkeypatch)
    writes = (database.writer.run(lambda tx: tx.load_tasks([])), database.writer.write(claim_tasks, CLAIM))
    _, claimed = await asyncio.gather(*writes)
    assert is_of(claimed, keys)
    assert sent[0].startswith(MARK)
    assert (sent[1], sent[-1], len(sent)) == ("BEGIN", "COMMIT", 4)


async def sending(database: Database, uid: str) -> tuple[str, str | None]:
    (row,) = await database.read(select(tasks.c.submission, tasks.c.submit_token).where(tasks.c.uid == uid))
    return row["submission"], row["submit_token"]


async def test_intents_are_one_statement(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    intents = [Intent(await new_task(database), 1, 60.0) for _ in range(2)]
    sent = statements(monkeypatch)
    with counted(stored=1):
        given = [*intents, Intent(intents[0].uid, 1, 60.0)]
        results = await asyncio.gather(*(database.writer.write(mark_sending, each) for each in given))
    assert results == [True, True, False]
    assert [query.startswith(MARK) for query in sent] == [True]
    for each in intents:
        assert await sending(database, each.uid) == (Submission.SENDING, each.token)
    rows = await database.read(select(tasks.c.leased, tasks.c.due_at - tasks.c.submitted_at))
    assert {(row["leased"], row["anon_1"].total_seconds()) for row in rows} == {(True, 60.0)}


async def test_intents_updates_and_outcomes_are_one_statement(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription, (key,) = await pending(database, 1)
    uid, intent, steps = await new_task(database), Intent(await new_task(database), 1, 60.0), Steps()
    sent = statements(monkeypatch)
    with counted(stored=1):
        writes = (
            database.writer.write(mark_sending, intent),
            database.writer.write(settle, new_settlement(key, subscription)),
            database.writer.write(steps.step, uid),
        )
        assert tuple(await asyncio.gather(*writes)) == (True, True, 1)
    assert [query.startswith(MARK) for query in sent] == [False, True]
    assert await sending(database, intent.uid) == (Submission.SENDING, intent.token)


async def test_where_one_task_does_not_wait_to_be_sent_the_others_are_marked_with_locks(database: Database) -> None:
    intents = [Intent(await new_task(database), 1, 60.0) for _ in range(2)]
    not_waiting = Intent(await new_task(database, submission=Submission.ACCEPTED), 1, 60.0)
    with counted(changed=1):
        given = (intents[0], not_waiting, intents[1])
        assert await asyncio.gather(*(database.writer.write(mark_sending, each) for each in given)) == [
            True,
            False,
            True,
        ]
    assert await sending(database, not_waiting.uid) == (Submission.ACCEPTED, None)


@pytest.mark.parametrize("is_marked_first", [True, False])
async def test_an_update_of_a_task_that_is_marked_in_the_same_batch_needs_locks(
    database: Database, is_marked_first: bool
) -> None:
    uid, steps = await new_task(database), Steps()
    intent = Intent(uid, 1, 60.0)
    with counted(needs_more=1):
        writes = [database.writer.write(mark_sending, intent), database.writer.write(steps.step, uid)]
        await asyncio.gather(*(writes if is_marked_first else reversed(writes)))
    assert await sending(database, uid) == (Submission.SENDING, intent.token)
    assert await progress_of(database, uid) == 1


async def test_an_intent_for_two_attempts_of_a_task_is_written_with_locks(database: Database) -> None:
    uid = await new_task(database)
    with counted(needs_more=1):
        both = (database.writer.write(mark_sending, Intent(uid, attempt, 60.0)) for attempt in (2, 1))
        assert await asyncio.gather(*both) == [False, True]


async def test_a_claim_whose_answer_is_lost_is_found_by_its_lease(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await due_tasks(database)
    cut(url, monkeypatch, "after")
    claimed = await database.writer.write(claim_tasks, CLAIM)
    assert is_of(claimed, keys)
    assert [each.content for each in claimed.tasks] == [None, None]


@pytest.mark.parametrize("how", ["before", "lost"])
async def test_a_claim_that_was_lost_claims_nothing_then_or_later(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    keys = await due_tasks(database)
    cut(url, monkeypatch, how)
    with pytest.raises(OutcomeUnknown) as caught:
        await database.writer.write(claim_tasks, CLAIM)
    assert not caught.value.is_pending
    assert is_of(await database.writer.write(claim_tasks, CLAIM), keys)


async def test_an_intent_whose_answer_is_lost_is_found_by_its_token(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    intent = Intent(await new_task(database), 1, 60.0)
    cut(url, monkeypatch, "after")
    assert await database.writer.write(mark_sending, intent) is True


@pytest.mark.parametrize("how", ["before", "lost"])
async def test_an_intent_that_was_lost_is_unknown_and_not_written_later(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    uid = await new_task(database)
    cut(url, monkeypatch, how)
    with pytest.raises(OutcomeUnknown) as caught:
        await database.writer.write(mark_sending, Intent(uid, 1, 60.0))
    assert not caught.value.is_pending
    assert await sending(database, uid) == (Submission.WAITING, None)


async def test_a_held_claim_is_known_when_it_is_on_disk(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.5)
    keys = await due_tasks(database)
    known: list[ClaimedTasks] = []
    with held_commits(url):
        with pytest.raises(OutcomeUnknown) as caught:
            await database.writer.write(claim_tasks, CLAIM)
        caught.value.when_stored(known.append)
        assert known == []
    later = caught.value.later
    assert later is not None
    async with asyncio.timeout(20):
        await later
    assert [is_of(each, keys) for each in known] == [True]


async def test_what_was_behind_a_held_commit_has_a_round_of_its_own(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So one batch waits once, and what came meanwhile is not behind two of its commits."""
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.5)
    uid = await new_task(database)
    await due_tasks(database)
    rounds = database.writer.batches
    with held_commits(url):
        writes = (database.writer.write(Steps().step, uid), database.writer.write(claim_tasks, CLAIM))
        told = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(each) for each in told] == [OutcomeUnknown, OutcomeUnknown]
    assert database.writer.batches - rounds == 2
