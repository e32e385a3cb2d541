"""The one door, on a real database: tasks, events and deliveries in one transaction."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from models import EventType, ReceiptReason, Submission, TaskStatus
from receiver.domain.ids import new_id
from receiver.domain.updates import Source
from receiver.tracking.create import CALLBACK_EVENTS, Callback
from tests.integration.harness import LEASE, House, arrival, tracking

ERROR = {"code": 10000, "message": "it broke", "raw_message": "", "detail": None}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    with capture_logs():
        async with tracking(tmp_path) as house:
            yield house


async def test_a_provider_task_that_nobody_knows_becomes_a_task(house: House) -> None:
    born = datetime(2026, 1, 1, tzinfo=UTC)
    applied = await house.hear(
        TaskStatus.PROCESSING,
        model="kling",
        task_type="video_generation",
        input={"prompt": "a dog"},
        config={"service_mode": "public", "webhook_config": {"endpoint": "https://x", "secret": ""}},
        created_at=born,
        progress=30,
    )
    task = await house.task(applied.task_uid)
    assert (task["model"], task["task_type"], task["input"]) == ("kling", "video_generation", {"prompt": "a dog"})
    assert (task["status"], task["progress"], task["created_at"]) == (TaskStatus.PROCESSING, 30, born)
    assert (task["submission"], task["provider_task_id"]) == (Submission.ACCEPTED, "pt-1")
    assert task["config"] == {"service_mode": "public"}
    assert task["due_at"] is not None
    assert await house.types() == [EventType.TASK_SUBMITTED]


async def test_it_becomes_one_task_however_often_it_is_heard_of(house: House) -> None:
    first, again, end = await house.apply_together(
        arrival(TaskStatus.PENDING), arrival(TaskStatus.PENDING), arrival(TaskStatus.COMPLETED)
    )
    late = await house.hear(TaskStatus.COMPLETED)
    assert {first.task_uid, again.task_uid, end.task_uid, late.task_uid} == {first.task_uid}
    assert [each.changed for each in (first, again, end, late)] == [True, False, True, False]
    assert len(await house.tasks()) == 1
    assert await house.types() == [EventType.TASK_SUBMITTED, EventType.TASK_COMPLETED]


@pytest.mark.parametrize("status", [TaskStatus.PENDING, TaskStatus.COMPLETED, TaskStatus.FAILED, None])
async def test_a_row_that_is_gone_is_made_again_under_its_own_id(house: House, status: TaskStatus | None) -> None:
    uid = new_id()
    applied = await house.hear(status, uid, word="" if status else "dreaming", model="kling", attempt=2)
    task = await house.task(uid)
    assert applied.task_uid == uid
    assert (task["status"], task["model"], task["attempt"]) == (status or TaskStatus.QUEUED, "kling", 2)
    assert task["task_type"] == "unknown"
    assert (task["due_at"] is None) == (status in (TaskStatus.COMPLETED, TaskStatus.FAILED))
    assert (await house.hear(status, uid, word="" if status else "dreaming", attempt=2)).changed is False


async def test_two_tasks_cannot_share_a_provider_task(house: House) -> None:
    mine, other = await house.create(), await house.create()
    await house.hear(TaskStatus.PROCESSING, mine)
    applied = await house.hear(TaskStatus.COMPLETED, other, body="not mine")
    assert (applied.changed, applied.receipt) == (False, ReceiptReason.CONFLICTING)
    assert [task["provider_task_id"] for task in await house.tasks()] == ["pt-1", None]
    assert (await house.task(other))["status"] == TaskStatus.QUEUED
    (receipt,) = await house.receipts()
    assert (receipt["task_uid"], receipt["reason"], receipt["body"]) == (other, ReceiptReason.CONFLICTING, "not mine")


async def test_two_tasks_cannot_share_a_provider_task_that_both_hear_of_at_once(house: House) -> None:
    mine, other = await house.create(), await house.create()
    first, second = await house.apply_together(
        arrival(TaskStatus.PROCESSING, mine), arrival(TaskStatus.PROCESSING, other)
    )
    assert (first.changed, second.receipt) == (True, ReceiptReason.CONFLICTING)
    assert [task["provider_task_id"] for task in await house.tasks()] == ["pt-1", None]


async def test_a_row_that_is_gone_does_not_take_a_provider_task_that_was_adopted_since(house: House) -> None:
    adopted = await house.hear(TaskStatus.PROCESSING)
    applied = await house.hear(TaskStatus.COMPLETED, new_id())
    assert applied.receipt == ReceiptReason.CONFLICTING
    assert (await house.task(adopted.task_uid))["status"] == TaskStatus.PROCESSING
    assert [task["provider_task_id"] for task in await house.tasks()].count("pt-1") == 1


async def test_a_provider_task_that_two_addresses_make_known_at_once_is_one_task(house: House) -> None:
    uid = new_id()
    outcomes = await house.apply_together(arrival(TaskStatus.PENDING), arrival(TaskStatus.PROCESSING, uid))
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert [task["provider_task_id"] for task in await house.tasks()].count("pt-1") == 1


async def test_a_change_and_its_event_and_its_deliveries_are_one_transaction(house: House) -> None:
    uid = await house.create()
    await house.subscribe()
    house.refuse_deliveries()
    before = (await house.task(uid), await house.events())
    with pytest.raises(Exception, match="no delivery"):
        await house.hear(TaskStatus.COMPLETED, uid)
    assert (await house.task(uid), await house.events()) == before
    assert (await house.deliveries(), house.tray.handed) == ([], [])
    house.take_deliveries()
    assert (await house.hear(TaskStatus.COMPLETED, uid)).changed
    assert await house.types() == [EventType.TASK_CREATED, EventType.TASK_COMPLETED]
    assert len(await house.deliveries()) == 1


async def test_a_task_whose_delivery_cannot_be_written_is_not_created(house: House) -> None:
    await house.subscribe()
    house.refuse_deliveries()
    with pytest.raises(Exception, match="no delivery"):
        await house.create()
    assert (await house.tasks(), await house.events()) == ([], [])


async def test_many_updates_in_one_transaction_are_decided_one_after_the_other(house: House) -> None:
    one, two = await house.create(), await house.create()
    outcomes = await house.apply_together(
        arrival(TaskStatus.PROCESSING, one, progress=10),
        arrival(TaskStatus.FAILED, two, provider_task_id="pt-2", error=ERROR),
        arrival(TaskStatus.PENDING, one),
        arrival(TaskStatus.PROCESSING, one, progress=20),
        arrival(TaskStatus.COMPLETED, two, provider_task_id="pt-2", output={"image_url": "u"}),
        arrival(TaskStatus.PROCESSING, one, progress=10),
    )
    assert [outcome.changed for outcome in outcomes] == [True, True, False, True, True, False]
    assert [(await house.task(uid))["status"] for uid in (one, two)] == [TaskStatus.PROCESSING, TaskStatus.COMPLETED]
    assert (await house.task(one))["progress"] == 20
    _, _, submitted, failed, updated, completed = await house.events()
    assert [row["snapshot"]["progress"] for row in (submitted, updated)] == [10, 20]
    assert completed["snapshot"]["corrects"] == failed["uid"]
    assert (await house.task(two))["ended_event"] == completed["uid"]
    assert (await house.task(two))["output"] == {"image_url": "u"}


async def test_only_what_came_as_a_webhook_leaves_a_receipt(house: House) -> None:
    uid = await house.create()
    await house.hear(TaskStatus.COMPLETED, uid)
    polled = await house.hear(TaskStatus.CANCELLED, uid, source=Source.POLL, body=None)
    assert (polled.receipt, await house.receipts()) == (None, [])
    await house.hear(TaskStatus.CANCELLED, uid, body="cancelled?")
    await house.hear(TaskStatus.FAILED, uid, attempt=7, body="of another attempt")
    assert [(row["reason"], row["body"]) for row in await house.receipts()] == [
        (ReceiptReason.CONFLICTING, "cancelled?"),
        (ReceiptReason.SUPERSEDED, "of another attempt"),
    ]
    assert await house.types() == [EventType.TASK_CREATED, EventType.TASK_COMPLETED]


async def test_who_is_switched_off_or_removed_hears_nothing(house: House) -> None:
    active = await house.subscribe()
    await house.subscribe(is_active=False)
    await house.subscribe(deleted_at=datetime.now(UTC))
    await house.subscribe(organization_id=await house.organization("other"))
    await house.hear(TaskStatus.COMPLETED, await house.create())
    assert await house.told() == [(active, EventType.TASK_CREATED), (active, EventType.TASK_COMPLETED)]


async def test_a_subscription_hears_of_the_events_that_it_asked_for(house: House) -> None:
    failures = await house.subscribe(event_types=[EventType.TASK_FAILED])
    await house.hear(TaskStatus.COMPLETED, await house.create())
    assert await house.told() == []
    await house.hear(TaskStatus.FAILED, await house.create(), provider_task_id="pt-2", error=ERROR)
    assert await house.told() == [(failures, EventType.TASK_FAILED)]


async def test_a_clients_callback_hears_of_its_own_tasks_and_of_no_other(house: House) -> None:
    mine, yours = Callback("https://a.example", None, "a"), Callback("https://b.example", "x", "b")
    first, second = await house.create(mine), await house.create(yours)
    await house.create()
    third = await house.create(mine)
    keys = {(await house.task(uid))["callback_id"] for uid in (first, third)}
    assert len(keys) == 1
    for number, uid in enumerate((first, second, third)):
        await house.hear(TaskStatus.COMPLETED, uid, provider_task_id=f"pt-{number}")
    told = await house.told()
    assert [subscription in keys for subscription, _ in told] == [True, False, True]
    assert {event for _, event in told} == {EventType.TASK_COMPLETED}
    assert EventType.TASK_CREATED not in CALLBACK_EVENTS


async def test_the_same_callback_of_another_organization_is_another(house: House) -> None:
    callback = Callback("https://a.example", None, "a")
    ours, theirs = await house.create(callback), await house.create(callback, await house.organization("other"))
    assert (await house.task(ours))["callback_id"] != (await house.task(theirs))["callback_id"]


async def test_deliveries_go_to_the_dispatcher_leased_as_long_as_it_has_room(house: House) -> None:
    subscription = await house.subscribe()
    uid = await house.create()
    (row,) = await house.deliveries()
    (lease,) = house.tray.handed
    assert (lease.id, lease.subscription_id, lease.attempt) == (row["id"], subscription, 1)
    assert lease.lease_until == row["due_at"] == row["created_at"] + timedelta(seconds=LEASE)
    assert (row["attempt"], house.tray.looks) == (1, 0)
    house.tray.has_room = False
    await house.hear(TaskStatus.COMPLETED, uid)
    _, waiting = await house.deliveries()
    assert (waiting["attempt"], waiting["due_at"]) == (0, waiting["created_at"])
    assert (len(house.tray.handed), house.tray.looks) == (1, 1)


async def test_who_waits_for_a_task_is_woken_by_its_news_alone(house: House) -> None:
    uid, other = await house.create(), await house.create()
    with house.waiting.watch(uid) as watch:
        await house.hear(TaskStatus.PROCESSING, other, provider_task_id="pt-2")
        assert not await watch.news(0)
        await house.hear(TaskStatus.PROCESSING, uid)
        assert await watch.news(0)
        await house.hear(TaskStatus.PROCESSING, uid)
        assert not await watch.news(0)
