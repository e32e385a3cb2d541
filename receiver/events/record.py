"""Recording events and the deliveries that follow from them, in the transaction of the change itself."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from models import EventType, SubscriptionKind
from receiver.domain.decisions import Decision
from receiver.domain.ids import new_id
from receiver.domain.task_state import TaskState
from receiver.events.after_commit import AfterCommit, Waiting
from receiver.events.new_deliveries import insert_deliveries, new_delivery, receives
from receiver.events.pending_fan_outs import MANY_WEBHOOKS
from receiver.storage.fan_outs import insert_fan_outs
from receiver.storage.transaction import Listener, NewEvent, Transaction


async def record(tx: Transaction, events: Sequence[NewEvent], after_commit: AfterCommit, now: datetime) -> None:
    """Append `events`, and insert a delivery for each event and each subscription that matches it.

    A delivery is written as leased to this process where its dispatcher has room, so that no claim is needed. The
    others are due at once, and any process may claim them. Those to registered subscriptions are written later where
    the organization has many (`receiver.events.pending_fan_outs`).
    """
    if not events:
        return
    pending = after_commit.pending_fan_outs
    organizations = {event.organization_id for event in events}
    later = {each for each in organizations if pending.has_many(each)}
    keys, listeners = await tx.append_events(
        events,
        organizations - later,
        {event.callback_id for event in events if event.callback_id is not None},
    )
    registered, callbacks = _by_addressee(listeners)
    for organization_id, own in registered.items():
        if len(own) > MANY_WEBHOOKS:
            pending.note(organization_id, len(own))
            later.add(organization_id)
        elif any(each.is_behind for each in own):
            later.add(organization_id)
    for organization_id in later:
        registered.pop(organization_id, None)
    deliveries = [
        new_delivery(event, key, listener, after_commit, now)
        for event, key in zip(events, keys, strict=True)
        for listener in (*registered.get(event.organization_id, ()), *callbacks.get(event.callback_id, ()))
        if receives(listener, event)
    ]
    await insert_deliveries(tx, deliveries, after_commit)
    if later:
        of_later = [(key, event) for key, event in zip(keys, events, strict=True) if event.organization_id in later]
        await insert_fan_outs(tx, of_later)
        tx.after_commit.append(lambda: pending.wake(later))
    uids = {uid for event in events for uid in (event.task_uid, event.run_uid) if uid is not None}
    tx.after_commit.append(lambda: _wake(after_commit.waiting, uids))
    tx.after_commit.append(lambda: after_commit.publisher.publish(list(zip(keys, events, strict=True))))


def event_of(task: TaskState, decision: Decision, now: datetime, request_id: str | None = None) -> NewEvent:
    """Return the event of a decision, which must have one; `request_id` is that of the request that caused it."""
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
        request_id=request_id,
    )


def task_created(row: Mapping[str, Any], key: int, now: datetime, request_id: str | None = None) -> NewEvent:
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
        request_id=request_id,
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


def _wake(waiting: Waiting, uids: Iterable[str]) -> None:
    for uid in uids:
        waiting.wake(uid)
