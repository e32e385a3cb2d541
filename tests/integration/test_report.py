"""The report of delivery finds each gap that is made in the rows, by its ids, and takes nothing else for one."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import and_, delete, func, insert, literal, select, update

from models import DeliveryStatus, EventType, ReplayKind, ReplayStatus, TaskStatus
from receiver.clock import utc_now
from receiver.domain.gaps import GapKind
from receiver.domain.ids import new_id
from receiver.errors import BadRequest
from receiver.events.fan_out import FanOutWriter, Progress
from receiver.events.pending_fan_outs import MANY_WEBHOOKS
from receiver.reporting import findings as found_things
from receiver.reporting import keys
from receiver.reporting.findings import Account
from receiver.reporting.reporter import Reporter
from receiver.storage.replays import ReplayBatch, insert_replay, send_events
from receiver.storage.subscriptions import change_subscription, remove_subscription
from receiver.storage.tables import deliveries, delivery_attempts, events, replays, subscriptions, tasks
from tests.integration.harness import tracking
from tests.integration.report_history import CALLBACK, HOUR, OUTPUT, History


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    """A completed task, all of whose events were delivered to a webhook, and to the task's own callback."""
    async with tracking(tmp_path) as harness:
        history = History(harness, 1)
        await history.subscribe()
        await history.create(callback=CALLBACK)
        await history.end()
        await history.deliver()
        yield history


REGISTERED = select(func.min(subscriptions.c.id)).where(subscriptions.c.fingerprint.is_(None)).scalar_subquery()
OWN = select(subscriptions.c.id).where(subscriptions.c.fingerprint.is_not(None)).scalar_subquery()


def event_of(type: EventType, task: str) -> Any:
    """Return the key of a task's event of a type."""
    of_task = select(tasks.c.id).where(tasks.c.uid == task).scalar_subquery()
    return select(events.c.id).where(events.c.type == type, events.c.task_id == of_task).scalar_subquery()


def end_for(subscription: Any, task: str) -> Any:
    """Return the condition of the delivery of a task's end to a subscription."""
    is_end = deliveries.c.event_id == event_of(EventType.TASK_COMPLETED, task)
    return and_(is_end, deliveries.c.subscription_id == subscription)


def without(condition: Any) -> list[Any]:
    """Return the statements that remove deliveries."""
    gone = select(deliveries.c.id).where(condition)
    attempts = delete(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(gone))
    return [attempts, delete(deliveries).where(condition)]


def without_event(type: EventType, task: str) -> list[Any]:
    """Return the statements that remove an event and its deliveries."""
    key = event_of(type, task)
    return [*without(deliveries.c.event_id == key), delete(events).where(events.c.id == key)]


def renamed(task: str, type: EventType, to: EventType) -> list[Any]:
    return [update(events).where(events.c.id == event_of(type, task)).values(type=to)]


def delivery_is(task: str, **values: Any) -> list[Any]:
    return [update(deliveries).where(end_for(REGISTERED, task)).values(**values)]


def task_is(task: str, **values: Any) -> list[Any]:
    return [update(tasks).where(tasks.c.uid == task).values(**values)]


def doubled(task: str) -> list[Any]:
    names = ("organization_id", "subscription_id", "event_id", "task_id", "status", "attempt", "leased")
    columns = [deliveries.c[name] for name in (*names, "schedule_from", "created_at", "settled_at")]
    again = select(literal(new_id(), deliveries.c.uid.type), *columns).where(end_for(REGISTERED, task))
    # With an attempt of its own, so that nothing but the number of deliveries is wrong.
    names_of_attempt = ["delivery_id", "number", "started_at", "duration_ms", "status_code"]
    newest = select(func.max(deliveries.c.id), literal(1), deliveries.c.created_at, literal(1), literal(200))
    newest = newest.group_by(deliveries.c.created_at).order_by(func.max(deliveries.c.id).desc()).limit(1)
    return [
        insert(deliveries).from_select(["uid", *(column.name for column in columns)], again),
        insert(delivery_attempts).from_select(names_of_attempt, newest),
    ]


def unproven(task: str) -> list[Any]:
    of_end = select(deliveries.c.id).where(end_for(REGISTERED, task))
    return [update(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(of_end)).values(status_code=500)]


PENDING: dict[str, Any] = {"status": DeliveryStatus.PENDING, "settled_at": None}
MADE: tuple[tuple[GapKind, Callable[[str], list[Any]]], ...] = (
    (GapKind.DELIVERY_MISSING, lambda task: without(end_for(REGISTERED, task))),
    (GapKind.DELIVERY_MISSING, lambda task: without(end_for(OWN, task))),
    (GapKind.DELIVERY_DOUBLED, doubled),
    (GapKind.DELIVERY_NOT_DUE, lambda task: delivery_is(task, **PENDING)),
    (GapKind.DELIVERY_CANCELLED, lambda task: delivery_is(task, status=DeliveryStatus.CANCELLED)),
    (GapKind.DELIVERY_UNPROVEN, unproven),
    (GapKind.END_EVENT_MISSING, lambda task: without_event(EventType.TASK_COMPLETED, task)),
    (GapKind.END_EVENT_MISSING, lambda task: task_is(task, ended_event=None)),
    (
        GapKind.END_EVENT_MISSING,
        lambda task: renamed(task, EventType.TASK_COMPLETED, EventType.TASK_UPDATED),
    ),
    (GapKind.END_EVENT_MISSING, lambda task: task_is(task, status=TaskStatus.CANCELLED)),
    (GapKind.END_EVENTS_DIFFER, lambda task: renamed(task, EventType.TASK_CREATED, EventType.TASK_FAILED)),
    (GapKind.END_EVENTS_DIFFER, lambda task: task_is(task, status=TaskStatus.PROCESSING, due_at=utc_now())),
    (
        GapKind.CREATED_EVENT_MISSING,
        lambda task: without_event(EventType.TASK_CREATED, task),
    ),
    (GapKind.TASK_NOT_DUE, lambda task: task_is(task, due_at=None)),
)
"""Each gap that can be made of a task, and how."""
ALSO_UNDELIVERED = 10
"""The one that makes an event of which the callback has no delivery, for it receives no `task.created`."""


async def test_each_gap_is_found_by_its_id_and_nothing_else_is(history: History) -> None:
    made = []
    for kind, _ in MADE:
        made.append(await history.create(callback=CALLBACK))
        if kind != GapKind.TASK_NOT_DUE:
            await history.end()
    await history.deliver()
    before = await history.report()
    assert (before.adds_up, before.gaps) == (True, {})
    assert before.deliveries.delivered == before.deliveries.events > 2 * len(MADE)

    for task, (_, statements) in zip(made, MADE, strict=True):
        await history.change(*statements(task))

    after = await history.report()
    assert not after.adds_up
    found: dict[str, set[str]] = {}
    for kind, listing in after.gaps.items():
        assert listing.count == len(listing.shown)
        found[kind] = {each["task_id"] for each in listing.shown}
    expected: dict[str, set[str]] = {}
    for task, (kind, _) in zip(made, MADE, strict=True):
        expected.setdefault(kind, set()).add(task)
    expected[GapKind.DELIVERY_MISSING] |= {made[ALSO_UNDELIVERED]}
    assert found == expected
    uids = {name: await history.uids(table) for name, table in (("event_id", events), ("delivery_id", deliveries))}
    for kind, listing in after.gaps.items():
        if kind.startswith("delivery_"):
            assert all(each["event_id"] in uids["event_id"] for each in listing.shown)
            assert all(each["delivery_id"] in uids["delivery_id"] for each in listing.shown if "delivery_id" in each)
    not_proven = sum(len(found[kind]) for kind in (GapKind.END_EVENT_MISSING, GapKind.END_EVENTS_DIFFER))
    assert after.tasks.created - after.tasks.ended - after.tasks.open == not_proven + 2


async def test_what_is_overdue_is_listed_and_adds_up(history: History) -> None:
    waiting = await history.create()
    await history.change(
        update(tasks).where(tasks.c.uid == waiting).values(due_at=utc_now() - HOUR),
        update(deliveries).where(deliveries.c.due_at.is_not(None)).values(due_at=utc_now() - HOUR),
    )
    found = await history.report()
    assert found.adds_up
    assert [each["task_id"] for each in found.overdue_tasks.shown] == [waiting]
    assert [each["task_id"] for each in found.overdue_deliveries.shown] == [waiting]


async def test_a_delivery_behind_an_earlier_one_of_an_ordered_webhook_is_not_overdue(history: History) -> None:
    await history.change(update(subscriptions).values(ordered=True))
    await history.create()
    await history.end()
    await history.change(update(deliveries).where(deliveries.c.due_at.is_not(None)).values(due_at=utc_now() - HOUR))
    found = await history.report()
    assert found.deliveries.waiting == 2
    assert [each["event_type"] for each in found.overdue_deliveries.shown] == [EventType.TASK_CREATED]


@pytest.mark.sqlite_only("what is asked of the database is asked of both by the other tests")
async def test_a_delivery_that_is_still_to_be_written_waits(history: History) -> None:
    for _ in range(MANY_WEBHOOKS):
        await history.subscribe(filters={"model": ["none"]})
    await history.create()
    await history.end()
    report = await history.report()
    assert (report.adds_up, report.gaps) == (True, {})
    assert report.deliveries.waiting == 2, "of `history`'s webhook, which has no filter"
    fan_out = FanOutWriter(history.harness.applier.after_commit)
    written = await history.harness.database.writer.write(fan_out.write, history.organization_id)
    assert written is Progress.ALL_WRITTEN
    await history.deliver()
    report = await history.report()
    assert report.adds_up
    assert (report.deliveries.waiting, report.deliveries.delivered) == (0, 5)


async def test_dead_deliveries_are_listed_and_add_up(history: History) -> None:
    await history.create()
    await history.deliver(DeliveryStatus.DEAD, 500)
    found = await history.report()
    assert found.adds_up
    assert (found.dead.count, found.deliveries.dead) == (1, 1)
    assert found.dead.shown[0]["task_id"] == history.task


async def test_what_a_filter_excludes_is_counted_apart_from_what_is_missing(history: History) -> None:
    filters = {"model": ["flux"], "metadata": {"order": ["7"]}}
    key = await history.subscribe(filters=filters, event_types=[EventType.TASK_COMPLETED])
    for metadata in ({"order": 7}, {"order": 7}, {"order": 8}, None):
        await history.create(metadata=metadata)
        await history.end()
    account = (await history.report()).webhooks[1][1]
    assert account == Account(events=5, waiting=2, filtered=3)  # the first task has no metadata

    lost = select(func.max(deliveries.c.id)).where(deliveries.c.subscription_id == key).scalar_subquery()
    await history.change(*without(deliveries.c.id == lost))

    found = await history.report()
    assert found.webhooks[1][1] == Account(events=5, waiting=1, filtered=3, missing=1)
    assert found.gaps[GapKind.DELIVERY_MISSING].count == 1


async def test_metadata_that_an_adopted_task_got_later_makes_no_gap(history: History) -> None:
    await history.subscribe(filters={"metadata": {"order": ["7"]}}, event_types=[EventType.TASK_COMPLETED])
    await history.harness.receive(TaskStatus.COMPLETED, provider_task_id="elsewhere", output=OUTPUT)
    await history.change(update(tasks).where(tasks.c.provider_task_id == "elsewhere").values(metadata={"order": 7}))
    found = await history.report()
    assert found.adds_up
    assert found.webhooks[1][1] == Account(events=2, filtered=1, unknown=1)


@pytest.mark.sqlite_only("what is asked of the database is asked of both by the other tests")
async def test_events_from_before_a_change_of_a_webhook_are_not_judged_by_its_present_settings(
    history: History,
) -> None:
    key = await history.subscribe(event_types=[EventType.TASK_FAILED])
    changed = {"event_types": list(EventType), "updated_at": utc_now()}
    await history.change(update(subscriptions).where(subscriptions.c.id == key).values(**changed))
    found = await history.report()
    assert found.adds_up
    account = found.webhooks[1][1]
    assert (account.unknown, account.missing) == (account.events, 0)
    assert account.events == found.events.total()


async def test_events_from_before_a_registration_do_not_count_and_a_removal_cancels(history: History) -> None:
    await history.subscribe(created_at=utc_now(), updated_at=utc_now())
    await history.create()
    webhooks = await history.harness.database.read(select(subscriptions.c.uid).order_by(subscriptions.c.id))
    await history.harness.database.writer.run(lambda tx: remove_subscription(tx, webhooks[0]["uid"], utc_now()))
    found = await history.report()
    assert found.adds_up
    removed, _, registered = (account for _, account in [found.webhooks[0], ("", found.callbacks), found.webhooks[1]])
    assert (removed.cancelled, removed.events) == (1, removed.delivered + 1)
    assert registered == Account(events=1, waiting=1)


@pytest.mark.sqlite_only("what is asked of the database is asked of both by the other tests")
async def test_a_webhook_that_is_switched_off_misses_nothing(history: History) -> None:
    await history.create()
    (row,) = await history.harness.database.read(select(subscriptions.c.uid).where(subscriptions.c.id == REGISTERED))
    long_ago = utc_now() - HOUR
    off = {"is_active": False}
    await history.harness.database.writer.run(lambda tx: change_subscription(tx, row["uid"], off, long_ago))
    await history.create()
    found = await history.report()
    assert found.adds_up
    account = found.webhooks[0][1]
    assert (account.waiting, account.switched_off) == (1, 1)


async def test_a_replay_is_apart_and_does_not_stand_in_for_a_lost_delivery(history: History) -> None:
    await history.change(*without(end_for(REGISTERED, history.task)))
    key = (await history.harness.database.read(select(REGISTERED.label("key"))))[0]["key"]
    ended = (
        await history.harness.database.read(select(event_of(EventType.TASK_COMPLETED, history.task).label("key")))
    )[0]["key"]
    replay = {
        **{"uid": new_id(), "organization_id": 1, "subscription_id": key, "kind": ReplayKind.REPLAY},
        **{"status": ReplayStatus.RUNNING, "since": utc_now() - HOUR, "until": utc_now(), "total": 1, "sent": 0},
        **{"cursor": 0, "created_at": utc_now()},
    }
    batch = ReplayBatch(replay_id=1, keys=[ended], cursor_was=0, cursor=ended, is_last=True)
    await history.harness.database.writer.run(lambda tx: insert_replay(tx, replay))
    await history.harness.database.writer.run(lambda tx: send_events(tx, batch, utc_now()))
    found = await history.report()
    assert found.replays == {"waiting": 1}
    assert found.gaps[GapKind.DELIVERY_MISSING].count == 1

    await history.change(update(replays).values(kind=ReplayKind.RECOVER))  # sends the event's own delivery again
    assert (await history.report()).adds_up


async def test_corrections_and_retries_have_events_of_their_own(history: History) -> None:
    corrected, retried = await history.create(), await history.create()
    for task in (corrected, retried):
        await history.end(TaskStatus.FAILED, task)
    await history.end(TaskStatus.COMPLETED, corrected)
    await history.retry(retried)
    assert (await history.report()).adds_up
    ends = events.c.type == EventType.TASK_FAILED
    first = select(func.min(events.c.id)).where(ends).scalar_subquery()
    await history.change(*without(deliveries.c.event_id == first), delete(events).where(events.c.id == first))
    found = await history.report()
    assert [each["task_id"] for each in found.gaps[GapKind.END_EVENTS_DIFFER].shown] == [corrected]


@pytest.mark.sqlite_only("what is asked of the database is asked of both by the other tests")
async def test_lists_are_cut_and_counts_are_not(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_things, "MOST_LISTED", 3)
    monkeypatch.setattr(keys, "KEYS_AT_ONCE", 2)
    for _ in range(5):
        await history.create()
    await history.change(update(tasks).where(tasks.c.status == "queued").values(due_at=None))
    found = await history.report()
    assert found.gaps[GapKind.TASK_NOT_DUE].count == 5
    assert len(found.gaps[GapKind.TASK_NOT_DUE].shown) == 3
    assert found.tasks.created == 6


async def test_only_what_was_created_in_the_range_counts(history: History) -> None:
    old = utc_now() - 30 * HOUR
    await history.change(
        update(tasks).values(created_at=old),
        update(events).values(created_at=old),
        update(deliveries).values(created_at=old),
    )
    await history.create()
    found = await history.report()
    assert (found.tasks.created, found.events) == (1, {"task.created": 1})
    whole = await Reporter(history.harness.database, retention_days=0).report(1, utc_now() - 40 * HOUR)
    assert (whole.tasks.created, whole.is_cut) == (2, False)
    cut = await Reporter(history.harness.database, retention_days=1).report(1, utc_now() - 40 * HOUR)
    assert (cut.tasks.created, cut.is_cut) == (1, True)


async def test_what_was_written_before_the_clock_was_set_back_counts(history: History) -> None:
    ahead = {"created_at": utc_now() + HOUR}
    await history.change(
        update(tasks).values(ahead),
        update(events).values(ahead),
        update(subscriptions).values(**ahead, updated_at=utc_now() + HOUR),
    )
    await history.create()
    await history.end()
    await history.deliver()
    await history.change(*without(deliveries.c.event_id == event_of(EventType.TASK_CREATED, history.task)))
    found = await history.report()
    (account,) = (account for _, account in found.webhooks)
    assert (found.adds_up, found.tasks.ended, account.earlier_settings) == (True, 2, 0)
    assert (account.events, account.delivered, account.unknown) == (4, 3, 1)


@pytest.mark.sqlite_only("what is asked of the database is asked of both by the other tests")
async def test_another_organization_s_rows_do_not_count(history: History) -> None:
    other = await history.harness.organization("other")
    found = await Reporter(history.harness.database, retention_days=90).report(other, utc_now() - HOUR)
    assert (found.tasks.created, found.events, found.webhooks, found.adds_up) == (0, {}, [], True)


async def test_a_report_that_takes_too_long_is_refused_and_the_next_one_is_made(history: History) -> None:
    for _ in range(6):  # more often than there are connections
        with pytest.raises(BadRequest, match="choose a later time"):
            await history.report(longest_seconds=0.0)
    assert (await history.report()).adds_up


async def test_a_report_is_of_one_moment(history: History) -> None:
    async with history.harness.database.snapshot() as snapshot:
        before = await snapshot.read(select(func.count().label("count")).select_from(tasks))
        await history.create()
        assert await snapshot.read(select(func.count().label("count")).select_from(tasks)) == before
    assert len(await history.harness.tasks()) == before[0]["count"] + 1
