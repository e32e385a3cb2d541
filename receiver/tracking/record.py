"""Writing events down, with the deliveries that follow from them. Part of every change of a task."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from models import SubscriptionKind
from receiver.domain.ids import new_id
from receiver.domain.matching import matches
from receiver.storage.transaction import LeasedDelivery, Listener, NewDelivery, NewEvent, Transaction
from receiver.tracking.announce import Alarm, Dispatcher, Waiting
from receiver.tracking.feed import Feed


@dataclass(frozen=True, slots=True)
class Announcer:
    """Who is told after a commit: those who wait, the dispatcher, and the worker that attends to due tasks."""

    waiting: Waiting
    dispatcher: Dispatcher
    due: Alarm
    feed: Feed
    lease_seconds: float
    """How long a delivery that goes straight to the dispatcher is leased to it."""


async def record(tx: Transaction, events: Sequence[NewEvent], announcer: Announcer, now: datetime) -> None:
    """Append `events` and insert a delivery for each subscription that listens to each.

    A delivery is written leased to this process where its dispatcher has room, so that it needs no claim; the
    others are due at once for whoever comes first.
    """
    if not events:
        return
    keys = await tx.insert_events(events)
    listeners = await tx.listeners(
        {event.organization_id for event in events},
        {event.callback_id for event in events if event.callback_id is not None},
    )
    deliveries = [
        _delivery(event, key, listener, announcer, now)
        for event, key in zip(events, keys, strict=True)
        for listener in listeners
        if _hears(listener, event)
    ]
    if deliveries:
        delivery_keys = await tx.insert_deliveries(deliveries)
        _hand_over(tx, deliveries, delivery_keys, announcer)
    uids = {event.task_uid for event in events if event.task_uid is not None}
    tx.after_commit.append(lambda: _wake(announcer.waiting, uids))
    tx.after_commit.append(lambda: announcer.feed.publish(list(zip(keys, events, strict=True))))


def _hears(listener: Listener, event: NewEvent) -> bool:
    if listener.kind == SubscriptionKind.CALLBACK:
        is_theirs = listener.id == event.callback_id
    else:
        is_theirs = listener.organization_id == event.organization_id
    return (
        is_theirs
        and event.type in listener.event_types
        and matches(listener.filters, model=event.model, task_type=event.task_type, labels=event.labels)
    )


def _delivery(event: NewEvent, event_key: int, listener: Listener, announcer: Announcer, now: datetime) -> NewDelivery:
    # An ordered one waits for its turn in the table, where a claim sees what is before it.
    leased = not listener.ordered and announcer.dispatcher.room(listener.id)
    return NewDelivery(
        uid=new_id(),
        organization_id=event.organization_id,
        subscription_id=listener.id,
        event_id=event_key,
        task_id=event.task_id,
        attempt=1 if leased else 0,
        due_at=now + timedelta(seconds=announcer.lease_seconds) if leased else now,
        created_at=now,
    )


def _hand_over(tx: Transaction, deliveries: Sequence[NewDelivery], keys: Sequence[int], announcer: Announcer) -> None:
    leased = [
        LeasedDelivery(key, row.subscription_id, row.attempt, row.due_at)
        for key, row in zip(keys, deliveries, strict=True)
        if row.attempt
    ]
    tx.after_commit.append(lambda: announcer.dispatcher.hand_over(leased))
    if len(leased) < len(deliveries):
        tx.after_commit.append(announcer.dispatcher.look)


def _wake(waiting: Waiting, uids: Iterable[str]) -> None:
    for uid in uids:
        waiting.wake(uid)
