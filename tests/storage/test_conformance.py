"""What the hot statements promise on both databases: tasks, events and listeners."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import delete, insert, select

from models import EventType, Submission, SubscriptionKind, TaskStatus
from receiver.domain.ids import new_id
from receiver.domain.task_state import TaskState
from receiver.storage.database import Database
from receiver.storage.subscriptions import set_failing_since
from receiver.storage.tables import events, tasks
from receiver.storage.transaction import Listener, TaskChange, Transaction
from tests.storage.rows import (
    NOW,
    add_organization,
    add_subscription,
    add_tasks,
    new_delivery,
    new_event,
    new_settlement,
    task_by_key,
    task_row,
)

DOCUMENTS: list[Any] = [
    None,
    {},
    [],
    "",
    0,
    1.5,
    False,
    {"nested": [{"a": None}, 1.5, -(2**53), 'ü ☃ 😀 \\ " \n \x7f'], "": {"empty key": []}},
    ["2026-01-02T03:04:05Z", "null"],
]
MOMENTS = [
    NOW,
    NOW.replace(microsecond=0),
    NOW.replace(microsecond=1),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=8, minutes=45))),
    datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=UTC),
]


@pytest.fixture(autouse=True)
async def _organization(database: Database) -> None:
    assert await add_organization(database) == 1


async def state_of(database: Database, uid: str) -> TaskState:
    return (await database.writer.run(lambda tx: tx.load_tasks([uid])))[uid]


async def test_tasks_are_loaded_by_their_public_id(database: Database) -> None:
    one, two = task_row(), task_row()
    keys = await add_tasks(database, one, two, task_row())
    wanted = [two["uid"], one["uid"], new_id()]
    found = await database.writer.run(lambda tx: tx.load_tasks(wanted))
    assert {uid: state.id for uid, state in found.items()} == {one["uid"]: keys[0], two["uid"]: keys[1]}
    assert await database.writer.run(lambda tx: tx.load_tasks([])) == {}


async def test_a_loaded_task_has_all_that_a_decision_needs(database: Database) -> None:
    callback = await add_subscription(database, kind=SubscriptionKind.CALLBACK, fingerprint="f")
    given: dict[str, Any] = {
        "status": TaskStatus.PROCESSING,
        "submission": Submission.ACCEPTED,
        "attempt": 2,
        "max_attempts": 3,
        "backoff_seconds": 0.25,
        "provider_task_id": "pt-1",
        "progress": 40,
        "revision": "3.040",
        "words": ["dreaming", "uploading"],
        "callback_id": callback,
        "ended_event": new_id(),
        "poll_count": 4,
        "last_update_at": NOW,
        "model": "kling",
        "task_type": "video_generation",
        "metadata": {"customer": "7"},
        "provider": "piapi",
        "cancel_requested_at": NOW,
        "trace_context": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
    row = task_row(**given)
    (key,) = await add_tasks(database, row)
    expected = TaskState(id=key, uid=row["uid"], organization_id=1, created_at=NOW, **given)
    assert await state_of(database, row["uid"]) == expected
    found = await database.writer.run(lambda tx: tx.load_tasks([], [("piapi", "pt-1"), ("piapi", "pt-2")]))
    assert found == {row["uid"]: expected}


async def test_a_provider_task_id_is_found_for_its_own_provider_only(database: Database) -> None:
    await add_tasks(database, task_row(provider_task_id="pt-1"), task_row(provider_task_id=None))
    assert await database.writer.run(lambda tx: tx.load_tasks([], [("another", "pt-1")])) == {}
    assert await database.writer.run(lambda tx: tx.load_tasks([], [])) == {}


async def test_two_tasks_cannot_have_the_same_provider_task_id(database: Database) -> None:
    await add_tasks(database, task_row(provider_task_id="pt-1"), task_row(provider="another", provider_task_id="pt-1"))
    with pytest.raises(Exception, match=r"(?i)unique"):
        await add_tasks(database, task_row(provider_task_id="pt-1"))


async def test_changes_of_different_columns_are_written_together(database: Database) -> None:
    rows = [task_row() for _ in range(3)]
    keys = await add_tasks(database, *rows)
    values: list[dict[str, Any]] = [
        {"progress": 5, "output": {"image_url": "u"}, "due_at": NOW},
        {"words": ["dreaming"]},
        {"progress": 7, "output": None, "due_at": None},
    ]
    changes = [
        TaskChange(id=key, from_status=TaskStatus.QUEUED, from_attempt=1, values=each)
        for key, each in zip(keys, values, strict=True)
    ]
    await database.writer.run(lambda tx: tx.update_tasks(changes))
    sizes = [len('{"image_url":"u"}'), 0, 0]
    for key, row, each, size in zip(keys, rows, values, sizes, strict=True):
        assert await task_by_key(database, key) == {"id": key, **row, **each, "stored_bytes": size}
    await database.writer.run(lambda tx: tx.update_tasks([]))


@pytest.mark.parametrize("stale", [{"from_status": TaskStatus.PENDING}, {"from_attempt": 2}, {"id": 4711}])
async def test_a_change_that_was_decided_on_another_state_is_refused(database: Database, stale: dict[str, Any]) -> None:
    keys = await add_tasks(database, task_row(), task_row())
    valid = TaskChange(id=keys[0], from_status=TaskStatus.QUEUED, from_attempt=1, values={"progress": 9})
    changes = [valid, replace(valid, **{"id": keys[1], **stale})]
    with pytest.raises(RuntimeError):
        await database.writer.run(lambda tx: tx.update_tasks(changes))
    assert [row["progress"] for row in await database.read(select(tasks.c.progress))] == [0, 0]


async def test_row_keys_are_returned_in_the_order_of_the_rows(database: Database) -> None:
    rows = [task_row() for _ in range(5)]
    keys = await add_tasks(database, *rows)
    stored = await database.read(select(tasks.c.id, tasks.c.uid))
    assert {each["uid"]: each["id"] for each in stored} == dict(zip((row["uid"] for row in rows), keys, strict=True))


async def test_events_are_numbered_in_order(database: Database) -> None:
    (task,) = await add_tasks(database, task_row())
    new = [new_event(task, type=EventType.TASK_CREATED), new_event(task), new_event(task)]
    first = await database.writer.run(lambda tx: tx.insert_events(new[:2]))
    second = await database.writer.run(lambda tx: tx.insert_events(new[2:]))
    assert first + second == sorted(set(first + second))
    stored = await database.read(select(events).order_by(events.c.id))
    assert [row["uid"] for row in stored] == [event.uid for event in new]
    assert stored[0] == {
        "id": first[0],
        "uid": new[0].uid,
        "organization_id": 1,
        "task_id": task,
        "run_uid": None,
        "type": EventType.TASK_CREATED,
        "snapshot": {"status": "processing"},
        "created_at": NOW,
        "request_id": None,
    }


async def test_an_event_may_have_no_task(database: Database) -> None:
    await database.writer.run(lambda tx: tx.insert_events([new_event(None)]))
    assert [row["task_id"] for row in await database.read(select(events))] == [None]


async def test_a_sequence_number_is_never_used_again(database: Database) -> None:
    (task,) = await add_tasks(database, task_row())
    before = await database.writer.run(lambda tx: tx.insert_events([new_event(task), new_event(task)]))
    await database.writer.run(lambda tx: tx.execute(delete(events)))
    after = await database.writer.run(lambda tx: tx.insert_events([new_event(task)]))
    assert after[0] > max(before)


async def test_listeners_are_active_and_of_the_organization_or_a_named_callback(database: Database) -> None:
    other = await add_organization(database, "other")
    registered = await add_subscription(database, event_types=[EventType.TASK_FAILED])
    of_other = await add_subscription(database, organization_id=other)
    callback = await add_subscription(database, kind=SubscriptionKind.CALLBACK, fingerprint="a")
    await add_subscription(database, is_active=False)
    await add_subscription(database, deleted_at=NOW)
    off = await add_subscription(database, kind=SubscriptionKind.CALLBACK, fingerprint="b", is_active=False)
    removed = await add_subscription(database, kind=SubscriptionKind.CALLBACK, fingerprint="c", deleted_at=NOW)

    async def listeners(organizations: set[int], callbacks: set[int]) -> list[Listener]:
        found = await database.writer.run(lambda tx: tx.listeners(organizations, callbacks))
        return sorted(found, key=lambda each: each.id)

    every = frozenset(EventType)
    listener = Listener(registered, 1, SubscriptionKind.REGISTERED, frozenset({EventType.TASK_FAILED}))
    assert await listeners({1}, set()) == [listener]
    assert await listeners({1}, {callback, off, removed}) == [
        listener,
        Listener(callback, 1, SubscriptionKind.CALLBACK, every),
    ]
    assert [each.id for each in await listeners({1, other}, set())] == [registered, of_other]
    assert await listeners(set(), set()) == []


async def test_events_are_appended_together_with_reading_who_listens(database: Database) -> None:
    other = await add_organization(database, "other")
    (task,) = await add_tasks(database, task_row())
    registered = await add_subscription(database, event_types=[EventType.TASK_FAILED], filters={"model": ["flux"]})
    await add_subscription(database, organization_id=other)
    callback = await add_subscription(database, kind=SubscriptionKind.CALLBACK, fingerprint="a", ordered=True)
    new = [new_event(task, type=EventType.TASK_CREATED), new_event(task), new_event(None)]

    async def appended(tx: Transaction) -> list[Listener]:
        keys, listeners = await tx.append_events(new, [1], [callback])
        rows = await tx.execute(select(events.c.id, events.c.uid).order_by(events.c.id))
        assert [(row.id, row.uid) for row in rows] == list(zip(keys, (event.uid for event in new), strict=True))
        assert sorted(listeners, key=lambda each: each.id) == sorted(
            await tx.listeners([1], [callback]), key=lambda each: each.id
        )
        return listeners

    assert {each.id for each in await database.writer.run(appended)} == {registered, callback}
    assert await database.writer.run(lambda tx: tx.append_events([new_event(task)], [], [])) == ([4], [])


async def test_what_fails_is_known_with_what_is_settled_and_after_a_change(database: Database) -> None:
    (task,) = await add_tasks(database, task_row())
    well, failing, other = [await add_subscription(database) for _ in range(3)]
    (event,) = await database.writer.run(lambda tx: tx.insert_events([new_event(task)]))
    new = [new_delivery(each, event, task, attempt=1) for each in (well, failing)]
    keys = await database.writer.run(lambda tx: tx.insert_deliveries(new))
    await database.writer.run(lambda tx: set_failing_since(tx, [failing, other], NOW))

    async def settled(tx: Transaction) -> None:
        done = [new_settlement(keys[0], well), new_settlement(keys[1], failing), new_settlement(keys[1], failing)]
        assert await tx.settle(done) == [True, True, False]
        assert await tx.failing([well, failing]) == {failing}
        assert await tx.failing([well]) == set()
        assert await tx.failing([well, other]) == {other}
        await set_failing_since(tx, [failing], None)
        assert await tx.failing([well, failing]) == set()

    await database.writer.run(settled)


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_documents_are_stored_alike_by_hot_statements_and_core(database: Database, document: Any) -> None:
    names = ("input", "config", "metadata", "output", "error", "logs", "detail", "meta")
    values = dict.fromkeys(names, document)
    hot, core = {**task_row(), **values}, {**task_row(), **values}
    (key,) = await add_tasks(database, hot)
    change = TaskChange(id=key, from_status=TaskStatus.QUEUED, from_attempt=1, values={"output": document})

    async def work(tx: Transaction) -> None:
        await tx.execute(insert(tasks), [core])
        await tx.update_tasks([change])
        await tx.insert_events([new_event(key, snapshot={"output": document})])

    await database.writer.run(work)
    for row in await database.read(select(tasks)):
        assert {name: row[name] for name in names} == values
        assert {name: type(row[name]) for name in names} == {name: type(document) for name in names}
    without_output = await database.read(select(tasks.c.id).where(tasks.c.output.is_(None)))
    assert len(without_output) == (2 if document is None else 0)
    assert [row["snapshot"] for row in await database.read(select(events))] == [{"output": document}]


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
async def test_times_are_stored_alike_by_hot_statements_and_core(database: Database, moment: datetime) -> None:
    hot, core = task_row(last_update_at=moment, due_at=moment), task_row(last_update_at=moment, due_at=moment)
    (key,) = await add_tasks(database, hot)
    change = TaskChange(id=key, from_status=TaskStatus.QUEUED, from_attempt=1, values={"started_at": moment})

    async def work(tx: Transaction) -> None:
        await tx.execute(insert(tasks), [{**core, "started_at": moment}])
        await tx.update_tasks([change])
        await tx.insert_events([new_event(key, created_at=moment)])

    await database.writer.run(work)
    rows = await database.read(select(tasks).where(tasks.c.due_at == moment, tasks.c.started_at == moment))
    assert [row["last_update_at"] for row in rows] == [moment, moment]
    assert all(row["last_update_at"].utcoffset() == timedelta(0) for row in rows)
    for row in (hot, core):
        assert (await state_of(database, row["uid"])).last_update_at == moment
    assert [row["created_at"] for row in await database.read(select(events))] == [moment]


async def test_a_time_without_a_time_zone_is_refused(database: Database) -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(Exception, match="time zone"):
        await database.writer.run(lambda tx: tx.execute(insert(tasks), [task_row(last_update_at=naive)]))
