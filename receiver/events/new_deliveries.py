"""Deliveries of an event: which subscriptions get one, and what becomes of it when it is written."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from receiver.domain.ids import new_id
from receiver.domain.matching import matches
from receiver.events.after_commit import AfterCommit
from receiver.storage.fan_outs import FanOutEvent
from receiver.storage.transaction import LeasedDelivery, Listener, NewDelivery, NewEvent, Transaction

Recorded = NewEvent | FanOutEvent
"""An event with what decides who receives it."""


def receives(listener: Listener, event: Recorded) -> bool:
    """Return whether a subscription receives an event of its organization."""
    return event.type in listener.event_types and matches(
        listener.filters,
        model=event.model,
        task_type=event.task_type,
        metadata=event.metadata,
        run_uid=event.run_uid,
    )


def new_delivery(
    event: Recorded, event_key: int, listener: Listener, after_commit: AfterCommit, now: datetime
) -> NewDelivery:
    """Return a delivery: leased to this process where its dispatcher has room, so that no claim is needed, or due."""
    # An ordered delivery waits in the table, where a claim can see the earlier deliveries of its task.
    leased = not listener.ordered and after_commit.dispatcher.has_room(listener.id, listener.organization_id)
    return NewDelivery(
        uid=new_id(),
        organization_id=listener.organization_id,
        subscription_id=listener.id,
        event_id=event_key,
        task_id=event.task_id,
        attempt=1 if leased else 0,
        due_at=now + timedelta(seconds=after_commit.lease_seconds) if leased else now,
        created_at=now,
    )


async def insert_deliveries(tx: Transaction, deliveries: Sequence[NewDelivery], after_commit: AfterCommit) -> None:
    """Insert deliveries; after the commit those that are leased go to the dispatcher, and others it may claim."""
    if not deliveries:
        return
    keys = await tx.insert_deliveries(deliveries)
    leased = [place for place, row in enumerate(deliveries) if row.attempt and row.due_at is not None]
    tx.after_commit.append(
        lambda: after_commit.dispatcher.hand_over([_lease(keys[place], deliveries[place]) for place in leased])
    )
    if len(leased) < len(deliveries):
        tx.after_commit.append(after_commit.dispatcher.wake)


def _lease(key: int, row: NewDelivery) -> LeasedDelivery:
    assert row.due_at is not None  # noqa: S101 - it is the end of the lease
    return LeasedDelivery(key, row.subscription_id, row.attempt, row.due_at, row.organization_id)
