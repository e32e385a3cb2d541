"""What the hot statements promise on both databases: claims, leases and settlements."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select

from models import DeliveryStatus, Submission, TaskStatus
from receiver.domain.ids import new_id
from receiver.storage.database import Database
from receiver.storage.large_rows import SMALL_BYTES
from receiver.storage.leases import claim_tasks
from receiver.storage.tables import deliveries, delivery_attempts, tasks
from receiver.storage.transaction import (
    ClaimedTasks,
    DueTask,
    LeasedDelivery,
    NewIntent,
    SendQueue,
    Settlement,
    TaskClaim,
)
from tests.fakes import claims
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

LEASE = timedelta(minutes=3)
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture(autouse=True)
async def _organization(database: Database) -> None:
    assert await add_organization(database) == 1


async def claim(database: Database, now: datetime = NOW, limit: int = 10, after: int = 0) -> list[DueTask]:
    return await claims.claim_polls(database.writer, now, now + LEASE, limit, after)


async def claim_unsent(
    database: Database, now: datetime = NOW, limit: int = 10, after: SendQueue = (0, False)
) -> list[DueTask]:
    return await claims.claim_unsent(database.writer, now, now + LEASE, limit, after)


def sent(**fields: Any) -> dict[str, Any]:
    """Return the row of a task that the provider has."""
    return task_row(**{"submission": Submission.ACCEPTED, "due_at": NOW, **fields})


async def claim_deliveries(
    database: Database, now: datetime = NOW, limit: int = 10, skip: tuple[int, ...] = ()
) -> list[LeasedDelivery]:
    return await database.writer.run(
        lambda tx: tx.claim_deliveries(now, now + LEASE, limit, skip, of_organization=10_000, skip_organizations=())
    )


async def add_deliveries(database: Database, subscription: int, *due: datetime, attempt: int = 0) -> list[int]:
    (task,) = await add_tasks(database, task_row())
    (event,) = await database.writer.run(lambda tx: tx.insert_events([new_event(task)]))
    new = [new_delivery(subscription, event, task, due_at=each, attempt=attempt) for each in due]
    return await database.writer.run(lambda tx: tx.insert_deliveries(new))


async def delivery(database: Database, key: int) -> dict[str, Any]:
    (row,) = await database.read(select(deliveries).where(deliveries.c.id == key))
    return row


def outcome(lease: LeasedDelivery, **fields: Any) -> Settlement:
    given = {"attempt": lease.attempt, "duration_ms": 12, "status_code": 204, "response": "thanks", **fields}
    return new_settlement(lease.id, lease.subscription_id, **given)


async def settle(database: Database, *settlements: Settlement) -> list[bool]:
    return await database.writer.run(lambda tx: tx.settle(settlements))


async def test_due_tasks_are_claimed_oldest_first_up_to_the_limit(database: Database) -> None:
    due = [NOW - timedelta(seconds=1), NOW, NOW - timedelta(seconds=9), NOW + MICROSECOND, None]
    keys = await add_tasks(database, *(sent(due_at=each) for each in due))
    assert [each.state.id for each in await claim(database, limit=2)] == [keys[2], keys[0]]
    assert [each.state.id for each in await claim(database)] == [keys[1]]
    assert await claim(database) == []
    assert await claim(database, limit=0) == []


async def test_organizations_take_turns_to_be_polled_however_many_tasks_of_one_are_due(database: Database) -> None:
    others = [await add_organization(database, name) for name in ("b", "c")]
    old = NOW - timedelta(hours=1)
    await add_tasks(database, *(sent(due_at=old) for _ in range(9)))
    await add_tasks(database, *(sent(due_at=NOW, organization_id=each) for each in others for _ in range(2)))
    await add_tasks(database, sent(due_at=NOW + MICROSECOND, organization_id=await add_organization(database, "d")))

    async def owners(limit: int, after: int) -> list[int]:
        return [each.state.organization_id for each in await claim(database, limit=limit, after=after)]

    assert await owners(4, 0) == [1, *others, 1]
    # The next claim continues after the organization that was polled for last.
    assert await owners(1, 1) == [others[0]]
    assert await owners(1, others[0]) == [others[1]]
    assert await owners(10, others[1]) == [1] * 7


async def test_a_claimed_task_is_due_again_when_its_lease_ends(database: Database) -> None:
    (key,) = await add_tasks(database, sent(status=TaskStatus.PROCESSING))
    assert len(await claim(database)) == 1
    assert (await task_by_key(database, key))["due_at"] == NOW + LEASE
    assert await claim(database, NOW + LEASE - MICROSECOND) == []
    assert [each.state.id for each in await claim(database, NOW + LEASE)] == [key]


async def test_an_unsent_task_is_not_polled_and_still_waits_while_it_is_claimed(database: Database) -> None:
    (key,) = await add_tasks(database, task_row(due_at=NOW))
    assert await claim(database) == []
    (claimed,) = await claim_unsent(database)
    assert (claimed.state.id, claimed.queue, claimed.submitted_at) == (key, (1, False), None)
    row = await task_by_key(database, key)
    assert (row["submission"], row["submitted_at"]) == (Submission.WAITING, None)
    assert (row["due_at"], row["leased"]) == (NOW + LEASE, True)
    assert await claim_unsent(database, NOW + LEASE - MICROSECOND) == []
    assert [each.state.id for each in await claim_unsent(database, NOW + LEASE)] == [key]


@pytest.mark.parametrize("in_batch_with_locks", [False, True])
async def test_tasks_of_both_kinds_are_claimed_at_once(database: Database, in_batch_with_locks: bool) -> None:
    async def both(polls: int, unsent: int, now: datetime = NOW) -> ClaimedTasks:
        wanted = TaskClaim(now, now + LEASE, polls, 0, unsent, (0, False))
        if in_batch_with_locks:
            return await database.writer.run(lambda tx: tx.claim_tasks(wanted))
        return await database.writer.write(claim_tasks, wanted)

    def kinds(claimed: ClaimedTasks) -> list[tuple[int, SendQueue | None]]:
        return [(each.state.id, each.queue) for each in claimed.tasks]

    old, older = NOW - timedelta(hours=1), NOW - timedelta(hours=2)
    polls = await add_tasks(database, sent(due_at=old), sent(due_at=older, submitted_at=older), sent())
    waiting = await add_tasks(database, task_row(due_at=old, input={"a": 1}), task_row(due_at=older, bulk=True))
    await add_tasks(database, sent(due_at=NOW + MICROSECOND), task_row(due_at=NOW + MICROSECOND))

    first = await both(2, 1)
    assert kinds(first) == [(polls[1], None), (polls[0], None), (waiting[0], (1, False))]
    assert [each.submitted_at for each in first.tasks] == [older, None, None]
    content = first.tasks[2].content
    assert content is not None
    assert content.documents() == ({"a": 1}, None)
    assert (first.may_be_more_polls, first.may_be_more_unsent) == (True, True)
    second = await both(2, 2)
    assert kinds(second) == [(polls[2], None), (waiting[1], (1, True))]
    assert (second.may_be_more_polls, second.may_be_more_unsent) == (False, False)
    assert await both(2, 2) == ClaimedTasks()
    # Of a kind that is not wanted nothing is claimed, and more may be due.
    only_polls = await both(9, 0, NOW + LEASE)
    assert {queue for _, queue in kinds(only_polls)} == {None}
    assert len(only_polls.tasks) == 4
    assert (only_polls.may_be_more_polls, only_polls.may_be_more_unsent) == (False, True)
    only_unsent = await both(0, 9, NOW + LEASE)
    assert None not in {queue for _, queue in kinds(only_unsent)}
    assert len(only_unsent.tasks) == 3
    assert (only_unsent.may_be_more_polls, only_unsent.may_be_more_unsent) == (True, False)


async def test_a_claim_says_that_more_may_be_due_where_organizations_have_unlike_numbers(database: Database) -> None:
    other = await add_organization(database, "b")
    await add_tasks(database, *(sent() for _ in range(9)), sent(organization_id=other))
    found: list[int] = []
    for _ in range(9):
        wanted = TaskClaim(NOW, NOW + LEASE, polls=4)
        claimed = await database.writer.write(claim_tasks, wanted)
        found += [each.state.id for each in claimed.tasks]
        if not claimed.may_be_more_polls:
            break
    assert len(found) == len(set(found)) == 10


async def test_what_a_task_is_to_send_comes_with_its_claim(database: Database) -> None:
    documents: list[Any] = [
        {"prompt": 'ü ☃ 😀 \\ " \n', "nested": [{"a": None}, 1.5]},
        {"size": 5},
        ["a"],
        "a text",
        "5",
        5,
        1.5,
        True,
        {},
        None,
    ]
    configs = [None, {"service_mode": "public"}, *documents[2:]]
    rows = [
        task_row(due_at=NOW, updated_at=NOW - MICROSECOND, input=given, config=config)
        for given, config in zip(documents, configs, strict=True)
    ]
    keys = await add_tasks(database, *rows)
    claimed = {each.state.id: each.content for each in await claim_unsent(database)}
    contents = [claimed[key] for key in keys]
    assert [each and each.documents() for each in contents] == list(zip(documents, configs, strict=True))
    assert {each and each.updated_at for each in contents} == {NOW - MICROSECOND}


async def test_a_large_task_is_claimed_without_what_it_is_to_send(database: Database) -> None:
    largest = {"a": "x" * (SMALL_BYTES - len('{"a":""}'))}
    small, large = await add_tasks(
        database, task_row(due_at=NOW, input=largest), task_row(due_at=NOW, input={**largest, "b": 1})
    )
    claimed = {each.state.id: each.content for each in await claim_unsent(database)}
    kept = claimed[small]
    assert kept is not None
    assert kept.documents() == (largest, None)
    assert claimed[large] is None


async def test_a_task_that_waits_at_this_attempt_is_marked_as_being_sent(database: Database) -> None:
    rows = [task_row(due_at=NOW, attempt=attempt, leased=True) for attempt in (1, 2)]
    first, second = await add_tasks(database, *rows)
    intents = [intent(row, NOW + number * LEASE) for number, row in enumerate(rows, 1)]
    marked = await database.writer.run(lambda tx: tx.mark_sending(intents, NOW - MICROSECOND))
    assert marked == {(rows[0]["uid"], 1): first, (rows[1]["uid"], 2): second}
    for key, row, given in zip((first, second), rows, intents, strict=True):
        changes = {
            "submission": Submission.SENDING,
            "submit_token": given.token,
            "submitted_at": NOW - MICROSECOND,
            "due_at": given.lease_until,
            "leased": True,
        }
        found = await task_by_key(database, key)
        assert found == {**row, **changes, "id": key, "stored_bytes": found["stored_bytes"]}
    assert await database.writer.run(lambda tx: tx.mark_sending(intents, NOW)) == {}


async def test_what_does_not_wait_to_be_sent_is_not_marked(database: Database) -> None:
    rows = [
        *(sent(submission=each) for each in Submission if each != Submission.WAITING),
        *(task_row(status=each, due_at=NOW) for each in TaskStatus if each != TaskStatus.QUEUED),
        task_row(due_at=NOW, cancel_requested_at=NOW),
        task_row(due_at=NOW, attempt=2),
        task_row(due_at=NOW),
    ]
    keys = await add_tasks(database, *rows)
    before = [await task_by_key(database, key) for key in keys]
    intents = [*(intent({**row, "attempt": 1}, NOW + LEASE) for row in rows[:-1]), intent(task_row(), NOW + LEASE)]
    assert await database.writer.run(lambda tx: tx.mark_sending(intents, NOW)) == {}
    assert [await task_by_key(database, key) for key in keys] == before


def intent(row: dict[str, Any], lease_until: datetime) -> NewIntent:
    return NewIntent(row["uid"], row["attempt"], new_id(), lease_until)


async def test_a_sent_task_is_not_claimed_to_be_sent(database: Database) -> None:
    await add_tasks(database, *(sent(submission=each) for each in Submission if each != Submission.WAITING))
    assert await claim_unsent(database) == []


async def test_a_send_queue_is_claimed_in_its_order_up_to_the_limit(database: Database) -> None:
    due = [NOW - MICROSECOND, NOW, NOW - timedelta(seconds=9), NOW + MICROSECOND, NOW, None]
    keys = await add_tasks(database, *(task_row(due_at=each) for each in due))
    assert [each.state.id for each in await claim_unsent(database, limit=2)] == [keys[2], keys[0]]
    assert [each.state.id for each in await claim_unsent(database)] == [keys[1], keys[4]]
    assert await claim_unsent(database) == []


async def test_send_queues_take_turns_however_long_one_of_them_is(database: Database) -> None:
    other = await add_organization(database, "other")
    old = NOW - timedelta(hours=1)
    await add_tasks(database, *(task_row(due_at=old, bulk=True) for _ in range(5)))
    await add_tasks(database, *(task_row(due_at=NOW, bulk=True, organization_id=other) for _ in range(2)))
    await add_tasks(database, task_row(due_at=NOW), task_row(due_at=NOW, organization_id=other))
    first, second = (1, True), (other, True)
    assert [each.queue for each in await claim_unsent(database, limit=3)] == [(1, False), first, (other, False)]
    # The next claim continues after the queue that was served last.
    assert [each.queue for each in await claim_unsent(database, limit=1, after=(other, False))] == [second]
    assert [each.queue for each in await claim_unsent(database, limit=1, after=second)] == [first]
    assert [each.queue for each in await claim_unsent(database, limit=4, after=first)] == [second, first, first, first]


async def test_a_send_queue_without_due_tasks_does_not_use_up_a_turn(database: Database) -> None:
    other = await add_organization(database, "other")
    await add_tasks(database, task_row(due_at=NOW + MICROSECOND), task_row(due_at=NOW, organization_id=other))
    assert [each.queue for each in await claim_unsent(database, limit=1)] == [(other, False)]


@pytest.mark.parametrize(
    ("status", "submission"),
    [
        (TaskStatus.QUEUED, Submission.SENDING),
        (TaskStatus.QUEUED, Submission.UNKNOWN),
        (TaskStatus.QUEUED, Submission.ACCEPTED),
        (TaskStatus.PROCESSING, Submission.ACCEPTED),
    ],
)
async def test_a_claim_changes_no_other_column(database: Database, status: TaskStatus, submission: Submission) -> None:
    row = task_row(status=status, submission=submission, due_at=NOW, submitted_at=NOW - LEASE)
    (key,) = await add_tasks(database, row)
    (claimed,) = await claim(database)
    assert (claimed.state.submission, claimed.submitted_at) == (submission, NOW - LEASE)
    unchanged = row.keys() - {"due_at", "leased"}
    stored = await task_by_key(database, key)
    assert {name: stored[name] for name in unchanged} == {name: row[name] for name in unchanged}


async def test_a_due_time_written_by_core_is_claimed_to_the_microsecond(database: Database) -> None:
    rows = [sent(due_at=NOW.replace(microsecond=0)), sent(due_at=NOW)]
    await database.writer.run(lambda tx: tx.execute(insert(tasks), rows))
    assert len(await claim(database, NOW.replace(microsecond=0) - MICROSECOND)) == 0
    assert len(await claim(database, NOW.replace(microsecond=0))) == 1
    assert len(await claim(database, NOW - MICROSECOND)) == 0
    assert len(await claim(database, NOW)) == 1


async def test_deliveries_are_stored_as_given(database: Database) -> None:
    subscription = await add_subscription(database)
    free, leased = [(await add_deliveries(database, subscription, NOW, attempt=attempt))[0] for attempt in (0, 1)]
    for key, attempt in ((free, 0), (leased, 1)):
        row = await delivery(database, key)
        assert (row["status"], row["attempt"], row["due_at"]) == (DeliveryStatus.PENDING, attempt, NOW)
        assert (row["subscription_id"], row["created_at"], row["settled_at"]) == (subscription, NOW, None)


async def test_due_deliveries_are_claimed_oldest_first_and_their_attempts_counted(database: Database) -> None:
    subscription = await add_subscription(database)
    keys = await add_deliveries(database, subscription, NOW, NOW - timedelta(seconds=5), NOW + MICROSECOND)
    assert await claim_deliveries(database, limit=1) == [LeasedDelivery(keys[1], subscription, 1, NOW + LEASE, 1)]
    assert await claim_deliveries(database) == [LeasedDelivery(keys[0], subscription, 1, NOW + LEASE, 1)]
    row = await delivery(database, keys[0])
    assert (row["attempt"], row["due_at"], row["status"]) == (1, NOW + LEASE, DeliveryStatus.PENDING)


async def test_a_delivery_whose_lease_ended_is_claimed_again_as_another_attempt(database: Database) -> None:
    subscription = await add_subscription(database)
    (key,) = await add_deliveries(database, subscription, NOW + LEASE, attempt=1)
    assert await claim_deliveries(database, NOW + LEASE - MICROSECOND) == []
    (lease,) = await claim_deliveries(database, NOW + LEASE)
    assert (lease.id, lease.attempt) == (key, 2)


async def test_skipped_subscriptions_do_not_hold_up_others(database: Database) -> None:
    slow, quick = await add_subscription(database), await add_subscription(database)
    waiting = await add_deliveries(database, slow, *[NOW - timedelta(hours=1)] * 5)
    (wanted,) = await add_deliveries(database, quick, NOW)
    claimed = await claim_deliveries(database, limit=3, skip=(slow,))
    assert [(each.id, each.subscription_id) for each in claimed] == [(wanted, quick)]
    assert {each.id for each in await claim_deliveries(database)} == set(waiting)


async def test_a_claim_takes_deliveries_of_each_subscription_up_to_the_limit(database: Database) -> None:
    busy, quiet = await add_subscription(database), await add_subscription(database)
    await add_deliveries(database, busy, *[NOW - timedelta(hours=1)] * 5)
    await add_deliveries(database, quiet, NOW, NOW + MICROSECOND)
    claimed = await claim_deliveries(database, limit=2)
    assert [each.subscription_id for each in claimed] == [busy, busy, quiet]
    assert [each.subscription_id for each in await claim_deliveries(database, limit=2)] == [busy, busy]


async def test_a_claim_takes_no_more_of_an_organization_than_its_share_however_many_webhooks_it_has(
    database: Database,
) -> None:
    other = await add_organization(database, "other")
    many = [await add_subscription(database) for _ in range(5)]
    for age, each in enumerate(many):
        await add_deliveries(database, each, *[NOW - timedelta(minutes=age)] * 3)
    quiet = await add_subscription(database, organization_id=other)
    (wanted,) = await add_deliveries(database, quiet, NOW)

    async def claim_of(of_organization: int, *left_out: int) -> list[int]:
        claimed = await database.writer.run(
            lambda tx: tx.claim_deliveries(
                NOW, NOW + LEASE, 10, (), of_organization=of_organization, skip_organizations=left_out
            )
        )
        return [each.subscription_id for each in claimed]

    assert await claim_of(2, other) == [many[4], many[3]], "the oldest come first"
    assert sorted(await claim_of(10)) == sorted([*many, *many, quiet]), "and all of them get as many"
    assert await claim_of(100, 1) == []
    assert await claim_of(100) == [many[2], many[1], many[0]]
    assert (await delivery(database, wanted))["attempt"] == 1


async def test_an_ordered_subscription_gets_the_events_of_a_task_one_by_one(database: Database) -> None:
    ordered, free = await add_subscription(database, ordered=True), await add_subscription(database)
    # The first one is not due yet, and the one after it waits for it all the same.
    first, second = await add_deliveries(database, ordered, NOW + timedelta(seconds=5), NOW)
    (other_task,) = await add_deliveries(database, ordered, NOW)
    also_free = await add_deliveries(database, free, NOW + timedelta(seconds=5), NOW)
    assert {each.id for each in await claim_deliveries(database)} == {other_task, also_free[1]}
    (lease,) = [each for each in await claim_deliveries(database, NOW + timedelta(seconds=5)) if each.id == first]
    assert await claim_deliveries(database, NOW + timedelta(seconds=5)) == []
    await settle(database, outcome(lease, status=DeliveryStatus.DEAD))
    assert [each.id for each in await claim_deliveries(database, NOW + timedelta(seconds=6))] == [second]


async def test_a_settled_delivery_is_never_claimed_again(database: Database) -> None:
    (key,) = await add_deliveries(database, await add_subscription(database), NOW)
    (lease,) = await claim_deliveries(database)
    assert await settle(database, outcome(lease)) == [True]
    row = await delivery(database, key)
    assert (row["status"], row["due_at"], row["settled_at"]) == (DeliveryStatus.DELIVERED, None, NOW)
    assert await claim_deliveries(database, NOW + 10 * LEASE) == []
    (attempt,) = await database.read(select(delivery_attempts))
    assert {name: attempt[name] for name in attempt if name != "id"} == {
        "delivery_id": key,
        "number": 1,
        "started_at": NOW,
        "duration_ms": 12,
        "status_code": 204,
        "error": None,
        "response": "thanks",
    }


async def test_a_failed_attempt_leaves_the_delivery_due_for_the_next(database: Database) -> None:
    (key,) = await add_deliveries(database, await add_subscription(database), NOW)
    (first,) = await claim_deliveries(database)
    later = NOW + timedelta(seconds=5)
    failed = {"status": DeliveryStatus.PENDING, "settled_at": None, "status_code": None, "error": "refused"}
    assert await settle(database, outcome(first, due_at=later, **failed)) == [True]
    assert await claim_deliveries(database, later - MICROSECOND) == []
    (second,) = await claim_deliveries(database, later)
    assert (second.id, second.attempt) == (key, 2)
    assert await settle(database, outcome(second)) == [True]
    numbers = await database.read(select(delivery_attempts.c.number, delivery_attempts.c.error))
    assert [tuple(row.values()) for row in numbers] == [(1, "refused"), (2, None)]


async def test_a_lost_lease_settles_nothing(database: Database) -> None:
    subscription = await add_subscription(database)
    lost, held = await add_deliveries(database, subscription, NOW - MICROSECOND, NOW)
    slow = (await claim_deliveries(database, limit=1))[0]
    (again,) = [each for each in await claim_deliveries(database, NOW + LEASE) if each.id == lost]
    still_held = LeasedDelivery(held, subscription, 1, NOW, 1)
    assert await settle(database, outcome(slow, status=DeliveryStatus.DEAD), outcome(still_held)) == [False, True]
    row = await delivery(database, lost)
    assert (row["status"], row["attempt"], row["due_at"]) == (DeliveryStatus.PENDING, 2, NOW + 2 * LEASE)
    assert await settle(database, outcome(again)) == [True]
    assert await settle(database, outcome(again, status=DeliveryStatus.DEAD)) == [False]
    assert (await delivery(database, lost))["status"] == DeliveryStatus.DELIVERED


async def test_a_repeated_settlement_keeps_the_first_record_of_the_attempt(database: Database) -> None:
    await add_deliveries(database, await add_subscription(database), NOW)
    (lease,) = await claim_deliveries(database)
    assert await settle(database, outcome(lease), outcome(lease, response="again")) == [True, False]
    assert [row["response"] for row in await database.read(select(delivery_attempts.c.response))] == ["thanks"]
