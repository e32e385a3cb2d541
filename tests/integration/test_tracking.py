"""The update path on a real database: tasks, events and deliveries in one transaction."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from models import EventType, ReceiptReason, Submission, TaskStatus
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.updates import Source
from receiver.tracking.create import CALLBACK_EVENTS, Callback
from tests.integration.harness import LEASE, TrackingHarness, arrival, tracking

ERROR = {"code": 10000, "message": "it broke", "raw_message": "", "detail": None}


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[TrackingHarness]:
    with capture_logs():
        async with tracking(tmp_path) as harness:
            yield harness


async def test_an_unknown_provider_task_becomes_a_task(harness: TrackingHarness) -> None:
    born = datetime(2026, 1, 1, tzinfo=UTC)
    applied = await harness.receive(
        TaskStatus.PROCESSING,
        model="kling",
        task_type="video_generation",
        input={"prompt": "a dog"},
        config={"service_mode": "public", "webhook_config": {"endpoint": "https://x", "secret": ""}},
        created_at=born,
        progress=30,
    )
    task = await harness.task(applied.task_uid)
    assert (task["model"], task["task_type"], task["input"]) == ("kling", "video_generation", {"prompt": "a dog"})
    assert (task["status"], task["progress"]) == (TaskStatus.PROCESSING, 30)
    assert task["created_at"] == born < task["updated_at"]
    assert (task["submission"], task["provider_task_id"]) == (Submission.ACCEPTED, "pt-1")
    assert task["config"] == {"service_mode": "public"}
    assert task["due_at"] is not None
    assert await harness.types() == [EventType.TASK_SUBMITTED]


async def test_an_unknown_provider_task_becomes_one_task_however_many_updates_it_has(harness: TrackingHarness) -> None:
    first, again, end = await harness.apply_together(
        arrival(TaskStatus.PENDING), arrival(TaskStatus.PENDING), arrival(TaskStatus.COMPLETED)
    )
    late = await harness.receive(TaskStatus.COMPLETED)
    assert {first.task_uid, again.task_uid, end.task_uid, late.task_uid} == {first.task_uid}
    assert [each.changed for each in (first, again, end, late)] == [True, False, True, False]
    assert len(await harness.tasks()) == 1
    assert await harness.types() == [EventType.TASK_SUBMITTED, EventType.TASK_COMPLETED]


@pytest.mark.parametrize("status", [TaskStatus.PENDING, TaskStatus.COMPLETED, TaskStatus.FAILED, None])
async def test_a_deleted_row_is_inserted_again_with_its_own_id(
    harness: TrackingHarness, status: TaskStatus | None
) -> None:
    uid = new_id()
    applied = await harness.receive(status, uid, word="" if status else "dreaming", model="kling", attempt=2)
    task = await harness.task(uid)
    assert applied.task_uid == uid
    assert (task["status"], task["model"], task["attempt"]) == (status or TaskStatus.QUEUED, "kling", 2)
    assert task["task_type"] == "unknown"
    assert (task["due_at"] is None) == (status in (TaskStatus.COMPLETED, TaskStatus.FAILED))
    assert (await harness.receive(status, uid, word="" if status else "dreaming", attempt=2)).changed is False


async def test_two_tasks_cannot_share_a_provider_task(harness: TrackingHarness) -> None:
    mine, other = await harness.create(), await harness.create()
    await harness.receive(TaskStatus.PROCESSING, mine)
    applied = await harness.receive(TaskStatus.COMPLETED, other, body="not mine")
    assert (applied.changed, applied.receipt) == (False, ReceiptReason.CONFLICTING)
    assert [task["provider_task_id"] for task in await harness.tasks()] == ["pt-1", None]
    assert (await harness.task(other))["status"] == TaskStatus.QUEUED
    (receipt,) = await harness.receipts()
    assert (receipt["task_uid"], receipt["reason"], receipt["body"]) == (other, ReceiptReason.CONFLICTING, "not mine")


async def test_two_tasks_cannot_share_a_provider_task_when_both_get_updates_at_once(harness: TrackingHarness) -> None:
    mine, other = await harness.create(), await harness.create()
    first, second = await harness.apply_together(
        arrival(TaskStatus.PROCESSING, mine), arrival(TaskStatus.PROCESSING, other)
    )
    assert (first.changed, second.receipt) == (True, ReceiptReason.CONFLICTING)
    assert [task["provider_task_id"] for task in await harness.tasks()] == ["pt-1", None]


async def test_a_deleted_row_does_not_take_a_provider_task_that_was_adopted_since(
    harness: TrackingHarness,
) -> None:
    adopted = await harness.receive(TaskStatus.PROCESSING)
    applied = await harness.receive(TaskStatus.COMPLETED, new_id())
    assert applied.receipt == ReceiptReason.CONFLICTING
    assert (await harness.task(adopted.task_uid))["status"] == TaskStatus.PROCESSING
    assert [task["provider_task_id"] for task in await harness.tasks()].count("pt-1") == 1


async def test_a_provider_task_that_is_reported_at_two_urls_at_once_is_one_task(harness: TrackingHarness) -> None:
    uid = new_id()
    outcomes = await harness.apply_together(arrival(TaskStatus.PENDING), arrival(TaskStatus.PROCESSING, uid))
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert [task["provider_task_id"] for task in await harness.tasks()].count("pt-1") == 1


async def test_a_change_and_its_event_and_its_deliveries_are_one_transaction(harness: TrackingHarness) -> None:
    uid = await harness.create()
    await harness.subscribe()
    harness.refuse_deliveries()
    before = (await harness.task(uid), await harness.events())
    with pytest.raises(Exception, match="no delivery"):
        await harness.receive(TaskStatus.COMPLETED, uid)
    assert (await harness.task(uid), await harness.events()) == before
    assert (await harness.deliveries(), harness.dispatcher.handed) == ([], [])
    harness.accept_deliveries()
    assert (await harness.receive(TaskStatus.COMPLETED, uid)).changed
    assert await harness.types() == [EventType.TASK_CREATED, EventType.TASK_COMPLETED]
    assert len(await harness.deliveries()) == 1


async def test_a_task_whose_delivery_cannot_be_written_is_not_created(harness: TrackingHarness) -> None:
    await harness.subscribe()
    harness.refuse_deliveries()
    with pytest.raises(Exception, match="no delivery"):
        await harness.create()
    assert (await harness.tasks(), await harness.events()) == ([], [])


async def test_updates_in_one_transaction_are_decided_one_after_the_other(harness: TrackingHarness) -> None:
    one, two = await harness.create(), await harness.create()
    outcomes = await harness.apply_together(
        arrival(TaskStatus.PROCESSING, one, progress=10),
        arrival(TaskStatus.FAILED, two, provider_task_id="pt-2", error=ERROR),
        arrival(TaskStatus.PENDING, one),
        arrival(TaskStatus.PROCESSING, one, progress=20),
        arrival(TaskStatus.COMPLETED, two, provider_task_id="pt-2", output={"image_url": "u"}),
        arrival(TaskStatus.PROCESSING, one, progress=10),
    )
    assert [outcome.changed for outcome in outcomes] == [True, True, False, True, True, False]
    assert [(await harness.task(uid))["status"] for uid in (one, two)] == [TaskStatus.PROCESSING, TaskStatus.COMPLETED]
    assert (await harness.task(one))["progress"] == 20
    _, _, submitted, failed, updated, completed = await harness.events()
    assert [row["snapshot"]["progress"] for row in (submitted, updated)] == [10, 20]
    assert completed["snapshot"]["corrects"] == failed["uid"]
    assert (await harness.task(two))["ended_event"] == completed["uid"]
    assert (await harness.task(two))["output"] == {"image_url": "u"}


async def test_each_event_of_one_transaction_shows_the_content_of_its_own_moment(harness: TrackingHarness) -> None:
    uid, other = await harness.create(), await harness.create()
    preview, picture = {"image_url": "preview"}, {"image_url": "final"}
    await harness.apply_together(
        arrival(TaskStatus.PROCESSING, uid, logs=["one"]),
        arrival(TaskStatus.COMPLETED, uid, output={}),
        arrival(TaskStatus.COMPLETED, uid, output=picture, logs=["one", "two"]),
        arrival(None, other, word="odd", provider_task_id="pt-2", progress=50, output=preview),
        arrival(TaskStatus.PROCESSING, other, provider_task_id="pt-2", progress=20),
        arrival(TaskStatus.COMPLETED, other, provider_task_id="pt-2"),
        arrival(TaskStatus.COMPLETED, other, provider_task_id="pt-2", output=picture),
    )
    told = [row for row in await harness.events() if row["type"] != EventType.TASK_CREATED]
    keys = [(await harness.task(each))["id"] for each in (uid, other)]
    of_one, of_other = ([row["snapshot"] for row in told if row["task_id"] == key] for key in keys)
    assert [snapshot.get("output", "none here") for snapshot in of_one] == ["none here", {}, "none here"]
    assert "two" not in str(of_one[1])
    assert [snapshot.get("output") for snapshot in of_other] == [preview, preview, preview, None]
    assert [(await harness.task(each))["output"] for each in (uid, other)] == [picture, picture]


async def test_a_failure_that_is_told_twice_at_once_begins_one_attempt(harness: TrackingHarness) -> None:
    uid = await harness.create(max_attempts=5)
    await harness.receive(TaskStatus.PROCESSING, uid)
    await harness.apply_together(*(arrival(TaskStatus.FAILED, error=ERROR) for _ in range(3)))
    task = await harness.task(uid)
    assert (task["status"], task["attempt"]) == (TaskStatus.QUEUED, 2)
    assert [row["reason"] for row in await harness.receipts()] == [ReceiptReason.SUPERSEDED] * 2


async def test_only_an_inbound_webhook_leaves_a_receipt(harness: TrackingHarness) -> None:
    uid = await harness.create()
    await harness.receive(TaskStatus.COMPLETED, uid)
    polled = await harness.receive(TaskStatus.CANCELLED, uid, source=Source.POLL, body=None)
    assert (polled.receipt, await harness.receipts()) == (None, [])
    await harness.receive(TaskStatus.CANCELLED, uid, body="cancelled?")
    await harness.receive(TaskStatus.FAILED, uid, attempt=7, body="of another attempt")
    assert [(row["reason"], row["body"]) for row in await harness.receipts()] == [
        (ReceiptReason.CONFLICTING, "cancelled?"),
        (ReceiptReason.SUPERSEDED, "of another attempt"),
    ]
    assert await harness.types() == [EventType.TASK_CREATED, EventType.TASK_COMPLETED]


async def test_a_disabled_or_removed_subscription_gets_no_delivery(harness: TrackingHarness) -> None:
    active = await harness.subscribe()
    await harness.subscribe(is_active=False)
    await harness.subscribe(deleted_at=datetime.now(UTC))
    await harness.subscribe(organization_id=await harness.organization("other"))
    await harness.receive(TaskStatus.COMPLETED, await harness.create())
    assert await harness.delivered() == [(active, EventType.TASK_CREATED), (active, EventType.TASK_COMPLETED)]


async def test_a_subscription_gets_only_the_event_types_that_it_selected(harness: TrackingHarness) -> None:
    failures = await harness.subscribe(event_types=[EventType.TASK_FAILED])
    await harness.receive(TaskStatus.COMPLETED, await harness.create())
    assert await harness.delivered() == []
    await harness.receive(TaskStatus.FAILED, await harness.create(), provider_task_id="pt-2", error=ERROR)
    assert await harness.delivered() == [(failures, EventType.TASK_FAILED)]


async def test_a_clients_callback_gets_the_events_of_its_own_tasks_only(harness: TrackingHarness) -> None:
    mine, yours = Callback("https://a.example", None, "a"), Callback("https://b.example", "x", "b")
    first, second = await harness.create(mine), await harness.create(yours)
    await harness.create()
    third = await harness.create(mine)
    keys = {(await harness.task(uid))["callback_id"] for uid in (first, third)}
    assert len(keys) == 1
    for number, uid in enumerate((first, second, third)):
        await harness.receive(TaskStatus.COMPLETED, uid, provider_task_id=f"pt-{number}")
    delivered = await harness.delivered()
    assert [subscription in keys for subscription, _ in delivered] == [True, False, True]
    assert {event for _, event in delivered} == {EventType.TASK_COMPLETED}
    assert EventType.TASK_CREATED not in CALLBACK_EVENTS


async def test_the_same_callback_of_another_organization_is_another(harness: TrackingHarness) -> None:
    callback = Callback("https://a.example", None, "a")
    ours, theirs = await harness.create(callback), await harness.create(callback, await harness.organization("other"))
    assert (await harness.task(ours))["callback_id"] != (await harness.task(theirs))["callback_id"]


async def test_deliveries_go_to_the_dispatcher_leased_as_long_as_it_has_room(harness: TrackingHarness) -> None:
    subscription = await harness.subscribe()
    uid = await harness.create()
    (row,) = await harness.deliveries()
    (lease,) = harness.dispatcher.handed
    assert (lease.id, lease.subscription_id, lease.attempt) == (row["id"], subscription, 1)
    assert lease.lease_until == row["due_at"] == row["created_at"] + timedelta(seconds=LEASE)
    assert (row["attempt"], harness.dispatcher.wakes) == (1, 0)
    harness.dispatcher.is_full = True
    await harness.receive(TaskStatus.COMPLETED, uid)
    _, waiting = await harness.deliveries()
    assert (waiting["attempt"], waiting["due_at"]) == (0, waiting["created_at"])
    assert (len(harness.dispatcher.handed), harness.dispatcher.wakes) == (1, 1)


async def test_a_long_poll_is_woken_by_changes_of_its_own_task_only(harness: TrackingHarness) -> None:
    uid, other = await harness.create(), await harness.create()
    with harness.waiting.watch(uid) as watch:
        await harness.receive(TaskStatus.PROCESSING, other, provider_task_id="pt-2")
        assert not await watch.changed(0)
        await harness.receive(TaskStatus.PROCESSING, uid)
        assert await watch.changed(0)
        await harness.receive(TaskStatus.PROCESSING, uid)
        assert not await watch.changed(0)


async def test_a_providers_clock_that_is_ahead_does_not_put_a_creation_into_the_future(
    harness: TrackingHarness,
) -> None:
    applied = await harness.receive(TaskStatus.PENDING, created_at=datetime(2999, 1, 1, tzinfo=UTC))
    assert (await harness.task(applied.task_uid))["created_at"] <= utc_now()
