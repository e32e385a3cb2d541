"""Fan-outs: events whose deliveries are written after them, some at a time (`receiver.events.fan_out`)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import Select, bindparam, delete, func, insert, select, update

from models import SubscriptionKind
from receiver.storage.events import matched_events
from receiver.storage.tables import events, fan_outs, subscriptions
from receiver.storage.transaction import NewEvent, Transaction

_newest = subscriptions.alias("newest")
_INSERT = insert(fan_outs).values(
    event_id=bindparam("event"),
    organization_id=bindparam("organization"),
    task_id=bindparam("task"),
    after_subscription_id=0,
    until_subscription_id=select(func.coalesce(func.max(_newest.c.id), 0))
    .where(
        _newest.c.organization_id == bindparam("organization"),
        _newest.c.kind == SubscriptionKind.REGISTERED,
    )
    .scalar_subquery(),
)

_ADVANCE = (
    update(fan_outs).where(fan_outs.c.event_id == bindparam("event")).values(after_subscription_id=bindparam("after"))
)


class FanOutEvent(Struct, frozen=True, kw_only=True):
    """An event whose deliveries are not all written: what matching it needs, and how far its fan-out is."""

    id: int
    organization_id: int
    task_id: int | None
    type: str
    created_at: datetime
    run_uid: str | None
    model: str | None
    task_type: str | None
    metadata: dict[str, Any] | None
    after: int
    """The last subscription that was looked at."""
    until: int
    """The last one that is to be looked at."""


async def insert_fan_outs(tx: Transaction, new: Sequence[tuple[int, NewEvent]]) -> None:
    """Note that the deliveries of these events, given with their row keys, are still to be written."""
    await tx.execute(
        _INSERT,
        [{"event": key, "organization": event.organization_id, "task": event.task_id} for key, event in new],
    )


def organizations_with_fan_outs() -> Select[Any]:
    """Return the query for the organizations that have events whose deliveries are to be written."""
    return select(fan_outs.c.organization_id).distinct()


async def first_fan_outs(tx: Transaction, organization_id: int, limit: int) -> list[FanOutEvent]:
    """Return an organization's first events whose deliveries are not all written, in their order."""
    columns = (
        events.c.organization_id,
        events.c.task_id,
        events.c.created_at,
        fan_outs.c.after_subscription_id.label("after"),
        fan_outs.c.until_subscription_id.label("until"),
    )
    query = (
        matched_events(*columns, among=fan_outs.join(events, events.c.id == fan_outs.c.event_id))
        .where(fan_outs.c.organization_id == organization_id)
        .order_by(fan_outs.c.event_id)
        .limit(limit)
    )
    return [FanOutEvent(**row._mapping) for row in await tx.execute(query)]


async def advance_fan_outs(tx: Transaction, done: Sequence[int], begun: Mapping[int, int]) -> None:
    """Delete the fan-outs of the events in `done`; of those in `begun` keep the subscription looked at last."""
    if done:
        await tx.execute(delete(fan_outs).where(fan_outs.c.event_id.in_(done)))
    if begun:
        await tx.execute(_ADVANCE, [{"event": event, "after": after} for event, after in begun.items()])
