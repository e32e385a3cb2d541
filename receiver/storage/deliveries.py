"""Deliveries: what sending one needs, returning leases of what was not sent, and the lists of the API."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    select,
    union_all,
    update,
)

from models import DeliveryStatus, SubscriptionKind
from models.columns import DocumentType
from receiver.storage.hot import HotQuery
from receiver.storage.page_filter import PageFilter
from receiver.storage.tables import (
    deliveries,
    delivery_attempts,
    events,
    organizations,
    replays,
    runs,
    subscriptions,
    tasks,
)
from receiver.storage.transaction import LeasedDelivery, Transaction

_NOT_NEEDED_TO_SEND = frozenset(
    {"revision", "words", "poll_count", "missing_count", "missing_since", "exception_count"}
    | {"leased", "due_at", "last_update_at", "ended_event", "callback_id"}
)

FEW = 1000
"""As many deliveries are read to find a page of them."""
Read = Callable[[Executable], Awaitable[list[dict[str, Any]]]]

LARGE_TASK_BYTES = 64 * 1024
"""A task whose documents had more bytes in all (`stored_bytes`) is large: so are the messages about it."""
# No parameter: a hot query has its keys alone.
_IS_SMALL = func.coalesce(tasks.c.stored_bytes, literal_column("0")) <= literal_column(str(LARGE_TASK_BYTES))


def _to_send(shown: Callable[[ColumnElement[Any]], ColumnElement[Any]]) -> HotQuery:
    return HotQuery(
        deliveries.c.id,
        {
            "delivery": [deliveries.c[name] for name in ("id", "uid", "status", "attempt", "schedule_from")],
            "organization": [organizations.c.id, organizations.c.uid],
            "event": [shown(each) for each in events.c],
            "subscription": [
                subscriptions.c[name]
                for name in (
                    "uid",
                    "kind",
                    "endpoint_url",
                    "format",
                    "headers",
                    "is_active",
                    "secret",
                    "retired_secrets",
                )
            ],
            "task": [shown(each) for each in tasks.c if each.name not in _NOT_NEEDED_TO_SEND],
            "run": [runs.c.trace_context],
        },
        lambda query: (
            query.join(events, events.c.id == deliveries.c.event_id)
            .join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)
            .join(organizations, organizations.c.id == deliveries.c.organization_id)
            .outerjoin(tasks, tasks.c.id == deliveries.c.task_id)
            .outerjoin(runs, and_(runs.c.uid == events.c.run_uid, events.c.task_id.is_(None)))
        ),
    )


def _if_small(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((_IS_SMALL, column)).label(column.key) if isinstance(column.type, DocumentType) else column


TO_SEND = _to_send(lambda column: column)
"""Deliveries by their row keys, with what sending them needs. All columns of the task are None for an event of no
task, those of the run for an event of a task."""
TO_PREPARE = _to_send(_if_small)
"""The same, but for the documents of large tasks and of their events: those columns are None."""

# As it stands in a partial index, which is not used where a parameter stands in its place.
_IS_UNDELIVERED = and_(
    deliveries.c.due_at.is_(None), deliveries.c.status != literal_column(f"'{DeliveryStatus.DELIVERED}'")
)
_IS_HELD = (
    deliveries.c.id == bindparam("delivery"),
    deliveries.c.attempt == bindparam("held"),
    deliveries.c.status == DeliveryStatus.PENDING,
)
_GIVE_BACK = (
    update(deliveries)
    .where(*_IS_HELD)
    .values(attempt=deliveries.c.attempt - 1, due_at=bindparam("next_due"), leased=False)
)
_CANCEL = (
    update(deliveries)
    .where(*_IS_HELD)
    .values(status=DeliveryStatus.CANCELLED, due_at=None, leased=False, settled_at=bindparam("cancelled_at"))
)


async def give_back(tx: Transaction, unsent: Sequence[LeasedDelivery], due_at: datetime | None) -> None:
    """End the leases of deliveries that were not sent, as if they had never been claimed.

    With `due_at` None they wait until their subscription is switched on again.
    """
    if unsent:
        await tx.execute(
            _GIVE_BACK, [{"delivery": each.id, "held": each.attempt, "next_due": due_at} for each in unsent]
        )


async def park(tx: Transaction, unsent: Sequence[LeasedDelivery], now: datetime) -> None:
    """Give back deliveries whose subscription was switched off when they were read; cancel those of a removed one.

    The state of the subscription's row at this moment decides, and the row is locked: a request that switches the
    subscription on runs before this, or after it and then makes due what was given back here.
    """
    table = subscriptions.c
    wanted = table.id.in_({each.subscription_id for each in unsent})
    rows = await tx.execute(
        select(table.id, table.is_active, table.deleted_at).where(wanted).with_for_update(read=True)
    )
    removed = {row.id for row in rows if row.deleted_at is not None}
    active = {row.id for row in rows if row.is_active}
    await give_back(tx, [each for each in unsent if each.subscription_id in active], now)
    await give_back(tx, [each for each in unsent if each.subscription_id not in active | removed], None)
    if cancelled := [each for each in unsent if each.subscription_id in removed]:
        await tx.execute(
            _CANCEL, [{"delivery": each.id, "held": each.attempt, "cancelled_at": now} for each in cancelled]
        )


class DeliveryFilter(PageFilter, frozen=True, kw_only=True):
    """Which deliveries to list, by the row keys of what they belong to."""

    status: str | None = None
    subscription_id: int | None = None
    event_id: int | None = None
    task_id: int | None = None


async def page_of_deliveries(read: Read, wanted: DeliveryFilter, limit: int) -> Select[Any]:
    """Return the query for a page of deliveries, newest first, each with its last attempt.

    Those of a small organization, and pending ones, may be few among very many: then they are found first.
    """
    way = _way_to_few(wanted)
    if way is None:
        return deliveries_matching(wanted, limit)
    found = way.limit(FEW + 1).subquery()
    (counted,) = await read(select(func.count().label("count")).select_from(found))
    matching = deliveries_matching(wanted, limit)
    return matching if counted["count"] > FEW else matching.where(deliveries.c.id.in_(select(found.c.id)))


def _way_to_few(wanted: DeliveryFilter) -> Select[Any] | None:
    """Return the query for row keys among which all of a page are; None where an index has just those of the page."""
    if wanted.status == DeliveryStatus.PENDING:
        one = wanted.subscription_id
        whose = deliveries.c.organization_id == wanted.organization_id
        of_one = [] if one is None else [deliveries.c.subscription_id == one]
        due = select(deliveries.c.id).where(deliveries.c.due_at.is_not(None), *of_one).limit(FEW + 1)
        kept = select(deliveries.c.id).where(_IS_UNDELIVERED, *(of_one or [whose]))
        kept = kept.where(deliveries.c.status == DeliveryStatus.PENDING).limit(FEW + 1)
        return select(union_all(*(select(each.subquery().c.id) for each in (due, kept))).subquery().c.id)
    if any(each is not None for each in (wanted.subscription_id, wanted.event_id, wanted.task_id)):
        return None
    if wanted.status in (DeliveryStatus.DEAD, DeliveryStatus.CANCELLED):
        return None
    of_ours = subscriptions.c.id == deliveries.c.subscription_id
    return (
        select(deliveries.c.id)
        .select_from(subscriptions.join(deliveries, of_ours))
        .where(subscriptions.c.organization_id == wanted.organization_id)
    )


def deliveries_matching(wanted: DeliveryFilter, limit: int) -> Select[Any]:
    """Return the query for a page of deliveries, newest first, each with its last attempt."""
    return _with_last_attempt().where(*_conditions(wanted)).order_by(deliveries.c.id.desc()).limit(limit)


def delivery_by_id(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for one delivery, with its last attempt."""
    return _with_last_attempt().where(deliveries.c.organization_id == organization_id, deliveries.c.uid == uid)


def delivery_attempts_of(delivery_id: int) -> Select[Any]:
    """Return the query for a delivery's attempts, in order."""
    of_delivery = delivery_attempts.c.delivery_id == delivery_id
    return select(delivery_attempts).where(of_delivery).order_by(delivery_attempts.c.number)


def _with_last_attempt() -> Select[Any]:
    last = delivery_attempts.alias("last")
    newest = select(func.max(delivery_attempts.c.number)).where(delivery_attempts.c.delivery_id == deliveries.c.id)
    is_its_last = and_(last.c.delivery_id == deliveries.c.id, last.c.number == newest.scalar_subquery())
    is_registered = subscriptions.c.kind == SubscriptionKind.REGISTERED
    return (
        select(
            deliveries,
            events.c.uid.label("event_uid"),
            events.c.type.label("event_type"),
            events.c.run_uid,
            tasks.c.uid.label("task_uid"),
            replays.c.uid.label("replay_uid"),
            case((is_registered, subscriptions.c.uid)).label("webhook_uid"),
            subscriptions.c.endpoint_url,
            last.c.status_code,
            last.c.error,
        )
        .join(events, events.c.id == deliveries.c.event_id)
        .join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)
        .outerjoin(tasks, tasks.c.id == deliveries.c.task_id)
        .outerjoin(replays, replays.c.id == deliveries.c.replay_id)
        .outerjoin(last, is_its_last)
    )


def _conditions(wanted: DeliveryFilter) -> list[ColumnElement[bool]]:
    found = wanted.conditions(
        deliveries,
        status=wanted.status,
        subscription_id=wanted.subscription_id,
        event_id=wanted.event_id,
        task_id=wanted.task_id,
    )
    if wanted.status in (DeliveryStatus.DEAD, DeliveryStatus.CANCELLED):
        found.append(_IS_UNDELIVERED)
    return found
