"""Recording events and the deliveries that follow from them, in the transaction of the change itself."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from models import EventType, SubscriptionKind
from receiver.domain.decisions import Decision
from receiver.domain.ids import new_id
from receiver.domain.matching import matches
from receiver.domain.task_state import TaskState
from receiver.events.after_commit import AfterCommit, Waiting
from receiver.storage.transaction import LeasedDelivery, Listener, NewDelivery, NewEvent, Transaction


async def record(tx: Transaction, events: Sequence[NewEvent], after_commit: AfterCommit, now: datetime) -> None:
    """Append `events`, and insert a delivery for each event and each subscription that matches it.

    A delivery is written as leased to this process where its dispatcher has room, so that no claim is needed. The
    others are due at once, and any process may claim them.
    """
    if not events:
        return
    keys = await tx.insert_events(events)
    listeners = await tx.listeners(
        {event.organization_id for event in events},
        {event.callback_id for event in events if event.callback_id is not None},
    )
    registered, callbacks = _by_addressee(listeners)
    deliveries = [
        _delivery(event, key, listener, after_commit, now)
        for event, key in zip(events, keys, strict=True)
        for listener in (*registered.get(event.organization_id, ()), *callbacks.get(event.callback_id, ()))
        if _matches(listener, event)
    ]
    after_commit.fan_out.note(listeners, events, deliveries)
    if deliveries:
        delivery_keys = await tx.insert_deliveries(deliveries)
        _hand_over(tx, deliveries, delivery_keys, after_commit)
    uids = {uid for event in events for uid in (event.task_uid, event.run_uid) if uid is not None}
    tx.after_commit.append(lambda: _wake(after_commit.waiting, uids))
    tx.after_commit.append(lambda: after_commit.publisher.publish(list(zip(keys, events, strict=True))))


def event_of(task: TaskState, decision: Decision, now: datetime) -> NewEvent:
    """Return the event of a decision; the decision must have one."""
    assert decision.event is not None  # noqa: S101 - a caller checks this first
    return NewEvent(
        uid=new_id(),
        organization_id=task.organization_id,
        task_id=task.id,
        task_uid=task.uid,
        type=decision.event,
        snapshot=decision.snapshot,
        created_at=now,
        callback_id=task.callback_id,
        model=task.model,
        task_type=task.task_type,
        metadata=task.metadata,
        run_uid=task.run_uid,
    )


def task_created(row: Mapping[str, Any], key: int, now: datetime) -> NewEvent:
    """Return the `task.created` event of a row from `storage.tasks.new_task` that was inserted with this key."""
    return NewEvent(
        uid=new_id(),
        organization_id=row["organization_id"],
        task_id=key,
        task_uid=row["uid"],
        type=EventType.TASK_CREATED,
        snapshot={"status": row["status"], "attempt": row["attempt"], "submission": row["submission"]},
        created_at=now,
        callback_id=row["callback_id"],
        model=row["model"],
        task_type=row["task_type"],
        metadata=row["metadata"],
        run_uid=row["run_uid"],
    )


def _by_addressee(
    listeners: Iterable[Listener],
) -> tuple[dict[int, list[Listener]], dict[int | None, list[Listener]]]:
    """Return the registered subscriptions by organization, and the clients' own callbacks by their row key.

    An event is matched only with those that it may be for: others may have a thousand.
    """
    registered: dict[int, list[Listener]] = {}
    callbacks: dict[int | None, list[Listener]] = {}
    for listener in listeners:
        if listener.kind == SubscriptionKind.CALLBACK:
            callbacks[listener.id] = [listener]
        else:
            registered.setdefault(listener.organization_id, []).append(listener)
    return registered, callbacks


def _matches(listener: Listener, event: NewEvent) -> bool:
    return event.type in listener.event_types and matches(
        listener.filters,
        model=event.model,
        task_type=event.task_type,
        metadata=event.metadata,
        run_uid=event.run_uid,
    )


def _delivery(
    event: NewEvent, event_key: int, listener: Listener, after_commit: AfterCommit, now: datetime
) -> NewDelivery:
    # An ordered delivery waits in the table, where a claim can see the earlier deliveries of its task.
    leased = not listener.ordered and after_commit.dispatcher.has_room(listener.id, listener.organization_id)
    return NewDelivery(
        uid=new_id(),
        organization_id=event.organization_id,
        subscription_id=listener.id,
        event_id=event_key,
        task_id=event.task_id,
        attempt=1 if leased else 0,
        due_at=now + timedelta(seconds=after_commit.lease_seconds) if leased else now,
        created_at=now,
    )


def _hand_over(
    tx: Transaction, deliveries: Sequence[NewDelivery], keys: Sequence[int], after_commit: AfterCommit
) -> None:
    leased = [
        LeasedDelivery(key, row.subscription_id, row.attempt, row.due_at, row.organization_id)
        for key, row in zip(keys, deliveries, strict=True)
        if row.attempt
    ]
    tx.after_commit.append(lambda: after_commit.dispatcher.hand_over(leased))
    if len(leased) < len(deliveries):
        tx.after_commit.append(after_commit.dispatcher.wake)


def _wake(waiting: Waiting, uids: Iterable[str]) -> None:
    for uid in uids:
        waiting.wake(uid)
