"""Batches that are tried without locks: what they write, what they refuse, and what happens when the answer is lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from models import DeliveryStatus, SubscriptionKind
from receiver.errors import OutcomeUnknown, StorageUnavailable
from receiver.storage import optimistic
from receiver.storage.database import Database
from receiver.storage.optimistic import Doubt, may_be_optimistic
from receiver.storage.postgresql import connection, one_statement
from receiver.storage.postgresql.one_statement import MARK, Writes
from receiver.storage.subscriptions import set_failing_since
from receiver.storage.tables import deliveries, delivery_attempts, events, tasks
from receiver.storage.transaction import (
    TaskChange,
    Transaction,
)
from tests.fakes.databases import outside, settings_in
from tests.fakes.held_commits import HELD, held_commits
from tests.fakes.sent_statements import cut, statements
from tests.storage.optimistic_batches import Steps, counted, counts, new_task, pending, progress_of, settle
from tests.storage.rows import (
    NOW,
    add_organization,
    add_subscription,
    new_settlement,
    task_row,
)

pytestmark = pytest.mark.postgresql_only("SQLite has one writer, which needs no locks")


SLEEPING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


@pytest.fixture(autouse=True)
async def _organization(database: Database) -> None:
    await add_organization(database)


@pytest.fixture
async def other(database: Database, tmp_path: Path) -> AsyncIterator[Database]:
    """Another process's connections to the same database."""
    async with await Database.open(settings_in(tmp_path)) as other:
        yield other


@pytest.fixture(params=["values", "arrays"])
def both_forms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a batch with one row for each part, and that of any batch."""
    if request.param == "arrays":
        monkeypatch.setattr(Writes, "_is_one", lambda _: False)


async def test_a_batch_is_one_read_and_one_statement(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    callback = await add_subscription(database, kind=SubscriptionKind.CALLBACK, fingerprint="f")
    another = await add_subscription(database, kind=SubscriptionKind.CALLBACK, fingerprint="g")
    registered = await add_subscription(database)
    await add_subscription(database, is_active=False)
    uids = [await new_task(database, callback_id=callback), await new_task(database)]
    steps = Steps()
    sent = statements(monkeypatch)
    with counted(stored=1):
        given = [*uids, uids[0]]
        results = await asyncio.gather(*(database.writer.write(steps.step, uid) for uid in given))
    assert [query.startswith(MARK) for query in sent] == [False, True]
    assert results == [1, 1, 2]
    stored = await database.read(select(events).order_by(events.c.id))
    assert [(row["id"], row["uid"]) for row in stored] == steps.published
    assert [row["snapshot"] for row in stored] == [{"progress": 1}, {"progress": 1}, {"progress": 2}]
    rows = await database.read(select(deliveries).order_by(deliveries.c.id))
    assert sorted((row["id"], row["subscription_id"]) for row in rows) == sorted(steps.delivered)
    of_event = [(row["event_id"], row["subscription_id"]) for row in rows]
    first, second, third = (row["id"] for row in stored)
    wanted = {(first, registered), (first, callback), (second, registered), (third, registered), (third, callback)}
    assert set(of_event) == wanted
    assert [event for event, _ in of_event] == sorted(event for event, _ in of_event)
    assert another not in {subscription for _, subscription in of_event}
    assert {(row["status"], row["leased"], row["attempt"], row["schedule_from"]) for row in rows} == {
        (DeliveryStatus.PENDING, True, 1, 0)
    }


@pytest.mark.usefixtures("both_forms")
async def test_what_changed_since_it_was_read_is_decided_again(database: Database, other: Database) -> None:
    uid = await new_task(database)
    steps, others = Steps(), Steps()
    steps.go_on.clear()
    with counted(changed=1, stored=1):
        writing = asyncio.create_task(database.writer.write(steps.step, uid))
        await steps.read.wait()
        assert await other.writer.write(others.step, uid) == 1
        steps.go_on.set()
        assert await writing == 2
    assert steps.calls == 2
    assert await progress_of(database, uid) == 2
    assert len(await database.read(select(events.c.id))) == 2


@pytest.mark.usefixtures("both_forms")
async def test_what_another_session_has_locked_is_waited_for_with_locks(database: Database, other: Database) -> None:
    uid = await new_task(database)
    locked, go_on = asyncio.Event(), asyncio.Event()

    async def hold(tx: Transaction) -> None:
        await tx.load_tasks([uid])
        locked.set()
        await go_on.wait()

    holding = asyncio.create_task(other.writer.run(hold))
    await locked.wait()
    steps = Steps()
    with counted(changed=1):
        writing = asyncio.create_task(database.writer.write(steps.step, uid))
        await steps.again.wait()
        go_on.set()
        assert await writing == 1
    await holding


@pytest.mark.usefixtures("both_forms")
async def test_a_change_that_is_committed_after_the_statement_began_is_seen(
    database: Database, other: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement sees the rows as they were when it began; what it locks is the newest version all the same."""
    uid = await new_task(database)
    text_of = one_statement._text.__wrapped__

    def slow(shape: Any) -> str:
        found = str(text_of(shape))
        assert found.count("SELECT task.id FROM ") == 1
        found = found.replace("SELECT task.id FROM ", "SELECT task.id FROM slept CROSS JOIN ")
        return found.replace("WITH ", "WITH slept AS MATERIALIZED (SELECT pg_sleep(1)), ", 1)

    steps, others = Steps(), Steps()
    with counted(changed=1, stored=1):
        monkeypatch.setattr(one_statement, "_text", slow)
        writing = asyncio.create_task(database.writer.write(steps.step, uid))
        with outside(url) as server:
            while not server.execute(SLEEPING).fetchall():  # noqa: ASYNC110 - the server's state
                await asyncio.sleep(0.01)
        monkeypatch.undo()
        assert await other.writer.write(others.step, uid) == 1
        assert not writing.done()
        assert await writing == 2
    assert await progress_of(database, uid) == 2


async def test_no_step_of_several_processes_is_lost_or_out_of_order(database: Database, other: Database) -> None:
    uids = [await new_task(database) for _ in range(3)]
    await add_subscription(database, ordered=True)
    before = counts()
    writers = [(each.writer, Steps()) for each in (database, other)]

    async def run(number: int) -> None:
        writer, steps = writers[number % 2]
        for turn in range(12):
            await writer.write(steps.step, uids[(number + turn) % 3])

    rounds = 0
    while counts()["changed"] == before["changed"] and rounds < 20:  # until both have met at least once
        await asyncio.gather(*(run(number) for number in range(8)))
        rounds += 1
    assert counts()["stored"] > before["stored"]
    assert counts()["changed"] > before["changed"]
    steps_of_each = 32 * rounds
    assert [await progress_of(database, uid) for uid in uids] == [steps_of_each] * 3
    rows = await database.read(select(events, tasks.c.uid.label("of")).join(tasks).order_by(events.c.id))
    for uid in uids:
        assert [row["snapshot"]["progress"] for row in rows if row["of"] == uid] == list(range(1, steps_of_each + 1))
    published = [pair for _, steps in writers for pair in steps.published]
    assert sorted(published) == [(row["id"], row["uid"]) for row in rows]
    told = await database.read(select(deliveries.c.event_id).order_by(deliveries.c.task_id, deliveries.c.id))
    assert len(told) == len(rows)
    of_task = {row["id"]: row["of"] for row in rows}
    for uid in uids:
        mine = [row["event_id"] for row in told if of_task[row["event_id"]] == uid]
        assert mine == sorted(mine)


async def test_outcomes_are_one_statement(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    subscription, keys = await pending(database)
    sent = statements(monkeypatch)
    with counted(stored=1):
        done = [new_settlement(key, subscription) for key in (*keys, keys[0])]
        assert await asyncio.gather(*(database.writer.write(settle, each) for each in done)) == [True, True, False]
    assert [query.startswith(MARK) for query in sent] == [True]
    rows = await database.read(select(deliveries))
    assert {(row["status"], row["leased"], row["settled_at"]) for row in rows} == {
        (DeliveryStatus.DELIVERED, False, NOW)
    }
    assert len(await database.read(select(delivery_attempts))) == 2


async def test_texts_and_times_of_several_outcomes_are_stored_as_they_are(database: Database) -> None:
    odd = [
        "",
        "null",
        "{}",
        '{"a",NULL}',
        '"',
        "\\",
        "\\n",
        " a, b ",
        "a\nb\tc\x01\x7f",
        "\u00e9\u2028\U0001f600",
        None,
    ]
    subscription, keys = await pending(database, len(odd))
    started = [NOW + timedelta(microseconds=number) for number in range(len(odd))]
    started[0] = datetime(1, 1, 1, tzinfo=UTC)
    done = [
        new_settlement(key, subscription, error=text, response=text, started_at=at)
        for key, text, at in zip(keys, odd, started, strict=True)
    ]
    with counted(stored=1):
        assert all(await asyncio.gather(*(database.writer.write(settle, each) for each in done)))
    rows = await database.read(select(delivery_attempts).order_by(delivery_attempts.c.delivery_id))
    assert [(row["error"], row["response"]) for row in rows] == list(zip(odd, odd, strict=True))
    assert [row["started_at"] for row in rows] == started


@pytest.mark.usefixtures("both_forms")
async def test_an_update_and_the_outcome_of_an_earlier_one_are_one_statement(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = await new_task(database)
    subscription = await add_subscription(database)
    steps = Steps()
    await database.writer.write(steps.step, uid)
    ((delivery, _),) = steps.delivered
    sent = statements(monkeypatch)
    done = new_settlement(delivery, subscription)
    with counted(stored=1):
        both = (database.writer.write(steps.step, uid), database.writer.write(settle, done))
        assert tuple(await asyncio.gather(*both)) == (2, True)
    assert [query.startswith(MARK) for query in sent] == [False, True]
    # With a lost lease the whole batch is done again, and nothing of it twice.
    with counted(changed=1):
        both = (database.writer.write(steps.step, uid), database.writer.write(settle, done))
        assert tuple(await asyncio.gather(*both)) == (3, False)
    stored = await database.read(select(events.c.id, events.c.uid).order_by(events.c.id))
    assert [(row["id"], row["uid"]) for row in stored] == steps.published
    rows = await database.read(select(deliveries.c.id, deliveries.c.status).order_by(deliveries.c.id))
    assert [row["status"] for row in rows] == [DeliveryStatus.DELIVERED, *[DeliveryStatus.PENDING] * 2]
    assert [row["id"] for row in rows] == [key for key, _ in steps.delivered]


async def test_outcomes_of_two_attempts_of_one_delivery_are_written_with_locks(database: Database) -> None:
    subscription, (key,) = await pending(database, 1)
    with counted(changed=1):
        both = [new_settlement(key, subscription, attempt=number) for number in (1, 2)]
        assert await asyncio.gather(*(database.writer.write(settle, each) for each in both)) == [True, False]


@pytest.mark.usefixtures("both_forms")
async def test_a_lost_lease_of_the_only_outcome_is_seen(database: Database) -> None:
    subscription, (key, _) = await pending(database)
    await database.writer.write(settle, new_settlement(key, subscription))
    with counted(changed=1):
        assert not await database.writer.write(settle, new_settlement(key, subscription, status_code=201))
    with counted(changed=1):
        assert not await database.writer.write(settle, new_settlement(key, subscription, attempt=2))


async def test_one_row_of_each_part_is_written_without_arrays(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = [await new_task(database) for _ in range(2)]
    subscription = await add_subscription(database)
    steps = Steps()
    sent = statements(monkeypatch)
    await database.writer.write(steps.step, uids[0])
    await database.writer.write(settle, new_settlement(steps.delivered[0][0], subscription))
    await asyncio.gather(*(database.writer.write(steps.step, uid) for uid in uids))
    assert ["[]" in query for query in sent if query.startswith(MARK)] == [False, False, True]
    assert [await progress_of(database, uid) for uid in uids] == [2, 1]
    rows = await database.read(select(deliveries.c.status).order_by(deliveries.c.id))
    assert [row["status"] for row in rows] == [DeliveryStatus.DELIVERED, *[DeliveryStatus.PENDING] * 2]


async def test_an_outcome_whose_lease_was_lost_is_written_with_locks(database: Database) -> None:
    subscription, keys = await pending(database)
    await database.writer.write(settle, new_settlement(keys[0], subscription))
    with counted(changed=1):
        done = [new_settlement(key, subscription, status_code=201) for key in keys]
        assert await asyncio.gather(*(database.writer.write(settle, each) for each in done)) == [False, True]
    codes = await database.read(select(delivery_attempts.c.status_code).order_by(delivery_attempts.c.delivery_id))
    assert [row["status_code"] for row in codes] == [200, 201]


@pytest.mark.usefixtures("both_forms")
async def test_an_outcome_of_a_failing_endpoint_is_written_with_locks(database: Database) -> None:
    subscription, keys = await pending(database)
    assert subscription == 1
    await database.writer.run(lambda tx: set_failing_since(tx, [subscription], NOW))
    with counted(changed=1):
        assert await database.writer.write(settle, new_settlement(keys[0], subscription))


async def test_what_needs_another_statement_is_written_with_locks(database: Database) -> None:
    uid = await new_task(database)

    @may_be_optimistic
    async def touch(tx: Transaction, items: Sequence[str]) -> list[Exception | None]:
        await tx.load_tasks(items)
        await tx.execute(text("SELECT 1"))
        return [None for _ in items]

    with counted(needs_more=1):
        await database.writer.write(touch, uid)


async def test_what_needs_locks_follows_the_rest_of_its_batch_in_a_transaction_of_its_own(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, steps = await new_task(database), Steps()
    order: list[str] = []

    async def touch(tx: Transaction) -> None:
        await tx.execute(text("SELECT 1"))

    async def noted(name: str, writing: Awaitable[object]) -> None:
        await writing
        order.append(name)

    sent = statements(monkeypatch)
    with counted(stored=1):
        writes = (("with locks", database.writer.run(touch)), ("without", database.writer.write(steps.step, uid)))
        await asyncio.gather(*(noted(*each) for each in writes))
    assert [query.startswith(MARK) for query in sent[:2]] == [False, True]
    assert (sent[2], sent[-1]) == ("BEGIN", "COMMIT")
    assert order == ["without", "with locks"]


async def test_a_fault_of_what_needs_locks_leaves_the_rest_of_its_batch_stored(database: Database) -> None:
    uid, steps = await new_task(database), Steps()

    async def fail(tx: Transaction) -> None:
        await tx.execute(text("SELECT 1 / 0"))

    with counted(stored=1):
        failed, stored = await asyncio.gather(
            database.writer.run(fail), database.writer.write(steps.step, uid), return_exceptions=True
        )
    assert "division by zero" in str(failed)
    assert stored == 1
    assert (steps.calls, await progress_of(database, uid)) == (1, 1)


@pytest.mark.usefixtures("both_forms")
async def test_the_statements_are_not_planned_each_time(database: Database) -> None:
    uid = await new_task(database)
    subscription = await add_subscription(database)
    steps = Steps()
    plans = text("SELECT statement, custom_plans FROM pg_prepared_statements WHERE custom_plans > 0")

    async def planned() -> dict[str, int]:
        for _ in range(15):  # five of them write other columns
            await database.writer.write(steps.step, uid)
            await database.writer.write(settle, new_settlement(steps.delivered[-1][0], subscription))
        found = await database.writer.run(lambda tx: tx.execute(plans))
        return {row.statement: row.custom_plans for row in found}

    before = await planned()
    assert await planned() == before
    assert sorted(count for query, count in before.items() if query.startswith(MARK)) == [5, 5, 5]


@may_be_optimistic
async def look(tx: Transaction, items: Sequence[str]) -> list[int | Exception]:
    found = await tx.load_tasks(set(items))
    return [found[item].progress for item in items]


async def test_a_batch_that_only_reads_is_answered_when_a_standby_has_what_it_read(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a transaction that has a number, and so a commit in the WAL, waits for the disk and the standby."""
    uid = await new_task(database)
    sent = statements(monkeypatch)
    newest = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    with outside(url) as server, counted(stored=1):
        (before,) = server.execute(newest).fetchone()
        assert await database.writer.write(look, uid) == 0
        assert server.execute(newest).fetchone() > (before,)
    assert [query.startswith(MARK) for query in sent] == [False, True]


async def test_it_can_be_switched_off(database: Database, tmp_path: Path) -> None:
    uid = await new_task(database)
    off = settings_in(tmp_path).model_copy(update={"optimistic_writes": False})
    with counted():
        async with await Database.open(off) as careful:
            assert await careful.writer.write(Steps().step, uid) == 1


async def test_a_fault_of_one_item_leaves_the_others(database: Database) -> None:
    uids = [await new_task(database) for _ in range(3)]
    missing = task_row()["uid"]
    steps = Steps()
    results = await asyncio.gather(
        *(database.writer.write(steps.step, uid) for uid in (uids[0], missing, *uids[1:])), return_exceptions=True
    )
    assert isinstance(results[1], KeyError)
    assert [results[0], *results[2:]] == [1, 1, 1]


async def test_a_statement_whose_answer_is_lost_is_found_with_its_keys(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = await new_task(database)
    subscription = await add_subscription(database)
    steps = Steps()
    cut(url, monkeypatch, "after")
    assert await database.writer.write(steps.step, uid) == 1
    (event,) = await database.read(select(events))
    (delivery,) = await database.read(select(deliveries))
    assert steps.published == [(event["id"], event["uid"])]
    assert steps.delivered == [(delivery["id"], subscription)]


@pytest.mark.parametrize("how", ["before", "lost"])
async def test_a_statement_that_was_lost_is_not_stored_then_or_later(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    uid = await new_task(database)
    steps = Steps()
    with outside(url) as server:
        sessions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = ?"
        before = {pid for (pid,) in server.execute(sessions, ("ringback",)).fetchall()}
        cut(url, monkeypatch, how)
        with pytest.raises(StorageUnavailable, match="nothing was stored"):
            await database.writer.write(steps.step, uid)
        # What is on its way may arrive later: the session that could still take it is ended.
        assert before - {pid for (pid,) in server.execute(sessions, ("ringback",)).fetchall()}
    assert await progress_of(database, uid) == 0
    assert steps.published == []
    assert await database.writer.write(steps.step, uid) == 1


async def test_an_outcome_whose_answer_is_lost_stays_unknown_and_may_be_written_again(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription, keys = await pending(database)
    cut(url, monkeypatch, "after")
    with pytest.raises(OutcomeUnknown) as caught:
        await database.writer.write(settle, new_settlement(keys[0], subscription))
    assert not caught.value.is_pending
    assert await database.writer.write(settle, new_settlement(keys[0], subscription)) is False
    assert len(await database.read(select(delivery_attempts))) == 1


async def test_a_held_statement_is_unknown_until_it_is_on_disk(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.5)
    uid = await new_task(database)
    steps = Steps()
    with held_commits(url), outside(url) as server:
        with pytest.raises(OutcomeUnknown) as caught:
            await database.writer.write(steps.step, uid)
        assert server.execute(HELD).fetchall()
        await add_subscription(database)  # the writer continues
        assert steps.published == []
        assert await progress_of(database, uid) == 0
    later = caught.value.later
    assert later is not None
    async with asyncio.timeout(20):
        assert await later == 1
    assert len(steps.published) == 1
    assert await progress_of(database, uid) == 1


async def test_a_lock_that_the_server_refuses_is_no_missing_answer(
    database: Database, url: str, logged: list[Any]
) -> None:
    uid = await new_task(database)
    steps = Steps()
    with outside(url) as server:
        server.execute("BEGIN")
        server.execute("SELECT FROM organization FOR UPDATE")  # the event refers to it
        writing = asyncio.create_task(database.writer.write(steps.step, uid))
        await steps.again.wait()
        server.execute("ROLLBACK")
    assert await writing == 1
    assert "commit answer missing" not in {record["event"] for record in logged}


def test_tries_rest_while_most_are_in_vain() -> None:
    doubt = Doubt()
    for _ in range(100):  # half of them
        assert not doubt.is_resting()
        doubt.stored()
        doubt.stored()
        doubt.in_vain()
    tries = rests = 0
    while rests < 2 * optimistic._RESTS:
        if doubt.is_resting():
            rests += 1
        else:
            tries += 1
            doubt.in_vain()
    assert tries < 16
    doubt.stored()
    assert not doubt.is_resting()


def test_batches_of_mixed_changes_have_one_text_in_the_end() -> None:
    def text_of(*columns: str) -> str:
        changes = [TaskChange(key, "pending", 1, {name: None}) for key, name in enumerate(columns)]
        return Writes(versions=dict.fromkeys(range(len(columns)), 1), changes=changes).statement(mixed)[0]

    mixed: set[str] = set()
    first = text_of("progress", "words")
    assert text_of("words", "due_at") != first
    assert text_of("progress", "words") == text_of("words", "due_at") == text_of("due_at", "progress", "words")
    assert text_of("words", "words") == text_of("words", "words", "words")
