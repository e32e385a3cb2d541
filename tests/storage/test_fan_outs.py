"""Deliveries that are written after their event, some at a time: each webhook gets each event once, in order."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

import models
from models import EventType, RunStatus, SubscriptionKind, TaskStatus
from receiver.domain.ids import new_id
from receiver.domain.load_shares import LoadShares
from receiver.events import fan_out
from receiver.events.after_commit import AfterCommit, Waiting, WakeTimer
from receiver.events.fan_out import MOST_DELIVERIES, FanOutWriter, Progress
from receiver.events.feed import Feed
from receiver.events.new_deliveries import insert_deliveries
from receiver.events.pending_fan_outs import MANY_WEBHOOKS
from receiver.events.record import record
from receiver.storage.database import Database
from receiver.storage.organizations import lock_organization
from receiver.storage.purge import purge_runs, purge_taskless_events, purge_tasks
from receiver.storage.tables import deliveries, events, fan_outs, runs, subscriptions
from receiver.storage.transaction import LeasedDelivery, NewEvent
from receiver.workers.fan_out import FanOutWorker
from tests.fakes.databases import settings_in
from tests.integration.harness import FakeDispatcher
from tests.storage.rows import NOW, add_organization, add_subscriptions, add_tasks, new_event, row_of, task_row

MANY = MANY_WEBHOOKS + 10


class NotingDispatcher(FakeDispatcher):
    """Notes that it was handed deliveries."""

    def __init__(self) -> None:
        super().__init__()
        self.was_handed = asyncio.Event()

    def hand_over(self, deliveries: Sequence[LeasedDelivery]) -> None:
        super().hand_over(deliveries)
        self.was_handed.set()


class Recording:
    """A process's recording of events, and its writing of fan-outs, on a database with one organization."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.dispatcher = NotingDispatcher()
        self.after_commit = AfterCommit(Waiting(), self.dispatcher, WakeTimer(), Feed(), lease_seconds=60)
        self.fan_outs = self.after_commit.pending_fan_outs
        self.writer = FanOutWriter(self.after_commit)

    async def record(self, *new: NewEvent) -> None:
        await self.database.writer.run(lambda tx: record(tx, new, self.after_commit, NOW))

    async def write(self, organization_id: int = 1) -> Progress:
        return await self.database.writer.write(self.writer.write, organization_id)

    async def write_all(self) -> int:
        """Write pieces until all is written; return how many there were."""
        pieces = 1
        while await self.write() is not Progress.ALL_WRITTEN:
            pieces += 1
        return pieces

    async def written(self) -> Counter[tuple[int, int]]:
        """Return how many deliveries there are of each event and subscription."""
        rows = await self.database.read(select(deliveries))
        return Counter((row["event_id"], row["subscription_id"]) for row in rows)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Let the worker run."""
        running = asyncio.create_task(FanOutWorker(self.database, self.writer, self.fan_outs, LoadShares()).run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def until_written(self, count: int) -> None:
        """Wait until at least `count` deliveries are written."""
        async with asyncio.timeout(30):
            while (await self.written()).total() < count:
                await self.dispatcher.was_handed.wait()
                self.dispatcher.was_handed.clear()


@pytest.fixture
async def recording(database: Database) -> Recording:
    assert await add_organization(database) == 1
    return Recording(database)


async def task_events(database: Database, count: int, **fields: Any) -> list[NewEvent]:
    (task,) = await add_tasks(database, task_row(metadata={"customer": 7}))
    return [new_event(task, model="flux", metadata={"customer": 7}, **fields) for _ in range(count)]


async def keys(database: Database, table: Any) -> list[int]:
    return [row["id"] for row in await database.read(select(table.c.id).order_by(table.c.id))]


async def test_deliveries_to_few_webhooks_are_written_with_the_event(recording: Recording, database: Database) -> None:
    await add_subscriptions(database, MANY_WEBHOOKS)
    await recording.record(*await task_events(database, 2))
    assert len(await recording.written()) == 2 * MANY_WEBHOOKS
    assert await database.read(select(fan_outs)) == []
    assert not recording.fan_outs.waiting


async def test_each_of_many_webhooks_gets_each_event_once(recording: Recording, database: Database) -> None:
    wanted = await add_subscriptions(database, MANY_WEBHOOKS + MOST_DELIVERIES)
    wanted += await add_subscriptions(database, 150, filters={"metadata": {"customer": ["7"]}})
    await add_subscriptions(database, 150, filters={"metadata": {"customer": ["8"]}})
    await add_subscriptions(database, 10, event_types=[EventType.TASK_FAILED])
    await recording.record(*await task_events(database, 3))
    await recording.record(*await task_events(database, 1))
    assert not await recording.written(), "with the event nothing is written but a note"
    assert recording.fan_outs.waiting == {1}
    before, most = Counter[tuple[int, int]](), 0
    while True:
        progress = await recording.write()
        written = await recording.written()
        most, before = max(most, (written - before).total()), written
        if progress is Progress.ALL_WRITTEN:
            break
    assert before == Counter({(event, webhook): 1 for event in await keys(database, events) for webhook in wanted})
    assert most == MOST_DELIVERIES
    assert await database.read(select(fan_outs)) == []
    assert len(recording.dispatcher.handed) == len(before), "leased where the dispatcher has room"


async def test_many_events_share_a_piece_where_few_webhooks_match(recording: Recording, database: Database) -> None:
    await add_subscriptions(database, MANY, filters={"model": ["another"]})
    (wanted,) = await add_subscriptions(database, 1)
    await recording.record(*await task_events(database, 9))
    assert await recording.write_all() == 1
    assert await recording.written() == Counter({(event, wanted): 1 for event in await keys(database, events)})


async def test_a_client_s_own_callback_does_not_wait_for_the_webhooks(recording: Recording, database: Database) -> None:
    await add_subscriptions(database, MANY)
    (callback,) = await add_subscriptions(database, 1, kind=SubscriptionKind.CALLBACK, fingerprint="a")
    for _ in range(2):  # when the organization is not yet known to have many, and when it is
        await recording.record(*await task_events(database, 1, callback_id=callback))
    assert await recording.written() == Counter({(event, callback): 1 for event in await keys(database, events)})
    await recording.write_all()
    assert len(await recording.written()) == 2 * (MANY + 1)


async def test_a_process_goes_on_where_another_one_ended(recording: Recording, database: Database) -> None:
    webhooks = await add_subscriptions(database, 3 * MOST_DELIVERIES)
    await recording.record(*await task_events(database, 2))
    assert await recording.write() is Progress.SOME_LEFT
    other = Recording(database)
    async with other.working():
        await other.until_written(2 * len(webhooks))
    expected = Counter({(event, webhook): 1 for event in await keys(database, events) for webhook in webhooks})
    assert await recording.written() == expected


async def test_the_worker_writes_what_is_recorded_while_it_runs(recording: Recording, database: Database) -> None:
    webhooks = await add_subscriptions(database, MANY)
    async with recording.working():
        for _ in range(5):
            await recording.record(*await task_events(database, 2))
        await recording.until_written(10 * len(webhooks))
    assert set((await recording.written()).values()) == {1}


async def test_events_keep_their_order_for_an_ordered_webhook_when_there_are_few_again(
    recording: Recording, database: Database
) -> None:
    webhooks = await add_subscriptions(database, MANY, ordered=True)
    first, second = await task_events(database, 2)
    await recording.record(first)
    removed = update(subscriptions).where(subscriptions.c.id.in_(webhooks[5:])).values(is_active=False, deleted_at=NOW)
    await database.writer.run(lambda tx: tx.execute(removed))
    restarted = Recording(database)  # it does not know that there were many
    await restarted.record(second)
    assert not await recording.written()
    assert restarted.fan_outs.waiting == {1}
    await restarted.write_all()
    rows = await database.read(select(deliveries).order_by(deliveries.c.id))
    assert [(row["event_id"], row["subscription_id"]) for row in rows] == [
        (event, webhook) for event in await keys(database, events) for webhook in webhooks[:5]
    ]


async def test_a_webhook_receives_what_happened_while_it_was_active(recording: Recording, database: Database) -> None:
    webhooks = await add_subscriptions(database, MANY)
    await recording.record(*await task_events(database, 1))
    later = {"is_active": False, "updated_at": NOW + timedelta(seconds=1)}
    long_before = {"is_active": False, "updated_at": NOW - timedelta(seconds=1)}
    removed = {"is_active": False, "deleted_at": NOW}
    for webhook, values in zip(webhooks, (later, long_before, removed), strict=False):
        changed = update(subscriptions).where(subscriptions.c.id == webhook).values(**values)
        await database.writer.run(lambda tx, changed=changed: tx.execute(changed))  # type: ignore[misc]
    await add_subscriptions(database, 3)
    await recording.write_all()
    rows = {row["subscription_id"]: row for row in await database.read(select(deliveries))}
    assert set(rows) == {webhooks[0], *webhooks[3:]}, "neither switched off before, nor removed, nor new"
    assert (rows[webhooks[0]]["due_at"], rows[webhooks[0]]["attempt"]) == (None, 0), "kept until it is switched on"


async def test_an_organization_that_has_few_webhooks_again_gets_deliveries_with_the_event(
    recording: Recording, database: Database
) -> None:
    webhooks = await add_subscriptions(database, MANY)
    await recording.record(*await task_events(database, 1))
    await recording.write_all()
    removed = update(subscriptions).where(subscriptions.c.id.in_(webhooks[5:])).values(is_active=False, deleted_at=NOW)
    await database.writer.run(lambda tx: tx.execute(removed))
    await recording.record(*await task_events(database, 1))
    await recording.write_all()
    await recording.record(*await task_events(database, 1))
    assert await database.read(select(fan_outs)) == []
    assert len(await recording.written()) == MANY + 5 + 5


async def test_events_of_runs_and_of_webhooks_are_written_too(recording: Recording, database: Database) -> None:
    await add_subscriptions(database, MANY, filters={"metadata": {"customer": ["8"]}})
    (wanted,) = await add_subscriptions(database, 1, filters={"metadata": {"customer": ["7"]}})
    await add_subscriptions(database, 1, event_types=[EventType.TASK_FAILED])
    run = models.Run(uid=new_id(), organization_id=1, created_at=NOW, updated_at=NOW, metadata_={"customer": 7})
    await database.writer.run(lambda tx: tx.execute(insert(runs), [row_of(run)]))
    await recording.record(
        new_event(None, type=EventType.RUN_COMPLETED, run_uid=run.uid, metadata={"customer": 7}),
        new_event(None, type=EventType.WEBHOOK_DISABLED),
    )
    await recording.write_all()
    of_run, of_webhook = await keys(database, events)
    written = await recording.written()
    assert [webhook for event, webhook in written if event == of_run] == [wanted]
    assert len([webhook for event, webhook in written if event == of_webhook]) == MANY + 1


async def test_nothing_is_purged_before_its_deliveries_are_written(recording: Recording, database: Database) -> None:
    await add_subscriptions(database, MANY, filters={"model": ["none"]})
    (task,) = await add_tasks(database, task_row(status=TaskStatus.COMPLETED, ended_at=NOW))
    run = models.Run(
        uid=new_id(), organization_id=1, status=RunStatus.COMPLETED, created_at=NOW, updated_at=NOW, ended_at=NOW
    )
    await database.writer.run(lambda tx: tx.execute(insert(runs), [row_of(run)]))
    await recording.record(
        new_event(task, model="flux"),
        new_event(None, run_uid=run.uid, type=EventType.RUN_COMPLETED),
        new_event(None, type=EventType.TASK_FAILED),
    )
    (run_key,) = await keys(database, runs)
    *_, alone = await keys(database, events)
    after = NOW + timedelta(days=1)

    async def purged() -> list[int]:
        return [
            await database.writer.run(lambda tx: purge_tasks(tx, [task], after)),
            await database.writer.run(lambda tx: purge_runs(tx, [run_key], after)),
            await database.writer.run(lambda tx: purge_taskless_events(tx, [alone])),
        ]

    assert await purged() == [0, 0, 0]
    assert len(await database.read(select(fan_outs))) == 3
    await recording.write_all()
    assert await database.read(select(fan_outs)) == []
    gone = update(deliveries).values(status="delivered", due_at=None)
    await database.writer.run(lambda tx: tx.execute(gone))
    assert await purged() == [1, 1, 1]


async def test_a_fan_out_that_fails_is_tried_again_and_holds_up_no_other(
    recording: Recording, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await add_organization(database, "other")
    for organization_id in (1, other):
        await add_subscriptions(database, MANY, organization_id=organization_id)
    await recording.record(*await task_events(database, 1))
    await recording.record(*await task_events(database, 1, organization_id=other))
    monkeypatch.setattr("receiver.workers.fan_out._LOOK_SECONDS", 0.05)
    failures = 2

    async def failing(tx: Any, new: Any, after_commit: AfterCommit) -> None:
        nonlocal failures
        if failures and any(each.organization_id == 1 for each in new):
            failures -= 1
            raise RuntimeError("a bug")
        await insert_deliveries(tx, new, after_commit)

    monkeypatch.setattr(fan_out, "insert_deliveries", failing)
    async with recording.working():
        await recording.until_written(2 * MANY)
    assert failures == 0
    assert set((await recording.written()).values()) == {1}


@pytest.mark.postgresql_only
async def test_one_process_at_a_time_writes_an_organization_s_deliveries(
    recording: Recording, database: Database, tmp_path: Path
) -> None:
    await add_subscriptions(database, MANY)
    await recording.record(*await task_events(database, 1))
    async with await Database.open(settings_in(tmp_path)) as other_database:
        other = Recording(other_database)
        locked, done = asyncio.Event(), asyncio.Event()

        async def hold(tx: Any) -> None:
            assert await lock_organization(tx, 1)
            locked.set()
            await done.wait()

        holding = asyncio.create_task(other_database.writer.run(hold))
        await locked.wait()
        assert await recording.write() is Progress.ELSEWHERE
        # Rows that refer to the organization are written all the same.
        await recording.record(*await task_events(database, 1))
        done.set()
        await holding
        await asyncio.gather(*(each.write_all() for each in (recording, other)))
    assert (await recording.written()).total() == 2 * MANY
