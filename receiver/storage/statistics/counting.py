"""Queries that count a part of a log: the events, or the attempts at deliveries, from one row key to another.

The databases group and count, so that few rows reach this process. What is counted is in rows that never change, so a
count of the same part is the same whenever it is made, as long as nothing of it is purged.

Each query is built once, because that takes longer than to run it, and the loop waits meanwhile. `part` returns its
parameters.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    select,
    true,
)

from models import EventType, SubscriptionKind
from models.columns import PublicId
from receiver.domain.decisions import ENDS
from receiver.storage.statistics.expressions import bucket, milliseconds_between, minute_of
from receiver.storage.tables import deliveries, delivery_attempts, events, subscriptions, tasks

ALL_DELIVERIES = 0
"""Stands for all subscriptions of an organization where the row key of one is expected."""
ALL_MODELS = ("", "")
"""Stands for all providers and models of an organization where the names of one are expected."""
_COUNTED = (EventType.TASK_CREATED, *sorted(ENDS))
_WAYS = ("webhook", "poll")
_AFTER, _UNTIL = (bindparam(name, type_=BigInteger) for name in ("after", "until"))
_earlier = events.alias("earlier")
_CORRECTED = events.c.snapshot["corrects"].as_string()


def part(after: int, until: int) -> dict[str, int]:
    """Return the parameters for the part of a log after one row key, up to another."""
    return {"after": after, "until": until, "most": until - after}


@cache
def newest(log: str) -> Select[Any]:
    """Return the query for the greatest row key of a log, as `newest`; null if it is empty."""
    return select(func.max(_table(log).c.id).label("newest"))


@cache
def first_after(log: str) -> Select[Any]:
    """Return the query for the next row key of a log after `after`, as `first`; null if there is none."""
    table = _table(log)
    return select(func.min(table.c.id).label("first")).where(table.c.id > _AFTER)


@cache
def task_events() -> Select[Any]:
    """Return the query for how many tasks were created and ended.

    Columns: organization_id, at, provider, model, type, way, is_correction, bucket, count.
    """
    is_counted = (_is_in_part(events.c.id), events.c.type.in_(_COUNTED))
    return _grouped(_of_tasks(events, _CORRECTED.is_not(None)).where(*is_counted))


@cache
def corrected_ends() -> Select[Any]:
    """Return the same query for the ends that events of this part of the log correct."""
    return _grouped(
        _of_tasks(_earlier, true())
        .join(events, _earlier.c.uid == cast(_CORRECTED, PublicId()))
        .where(_is_in_part(events.c.id), events.c.type.in_(sorted(ENDS)))
    )


@cache
def dead_deliveries() -> Select[Any]:
    """Return the query for (organization_id, at, subscription_id, count) of the deliveries that were given up.

    `subscription_id` is null for the callback of a client.
    """
    at = minute_of(events.c.created_at).label("at")
    webhook = cast(events.c.snapshot["delivery", "webhook_id"].as_string(), PublicId())
    return (
        select(events.c.organization_id, at, subscriptions.c.id.label("subscription_id"), func.count().label("count"))
        .select_from(events.outerjoin(subscriptions, subscriptions.c.uid == webhook))
        .where(_is_in_part(events.c.id), events.c.type == EventType.DELIVERY_DEAD)
        .group_by(events.c.organization_id, at, subscriptions.c.id)
    )


@cache
def attempts() -> Select[Any]:
    """Return the query for (organization_id, at, subscription_id, is_delivered, bucket, count) of attempts.

    `subscription_id` is null for the callbacks of clients, `bucket` where there was no answer.
    """
    table = delivery_attempts.c
    is_registered = subscriptions.c.kind == SubscriptionKind.REGISTERED
    found = (
        select(
            deliveries.c.organization_id,
            minute_of(table.started_at).label("at"),
            case((is_registered, subscriptions.c.id)).label("subscription_id"),
            case((table.status_code.between(200, 299), 1), else_=0).label("is_delivered"),
            case((table.status_code.is_not(None), table.duration_ms)).label("milliseconds"),
        )
        .select_from(delivery_attempts)
        .join(deliveries, deliveries.c.id == table.delivery_id)
        .join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)
        .where(_is_in_part(table.id))
    )
    return _counted(found, ("organization_id", "at", "subscription_id", "is_delivered"))


@cache
def new_metadata() -> Select[Any]:
    """Return the query for (id, organization_id, metadata) of the tasks that were created with some."""
    is_new = and_(_is_in_part(events.c.id), events.c.type == EventType.TASK_CREATED)
    return (
        select(tasks.c.id, tasks.c.organization_id, tasks.c.metadata)
        .select_from(events.join(tasks, tasks.c.id == events.c.task_id))
        .where(is_new, tasks.c.metadata.is_not(None))
    )


def _of_tasks(log: Any, is_correction: ColumnElement[bool]) -> Select[Any]:
    way = log.c.snapshot["source"].as_string()
    is_end = log.c.type != EventType.TASK_CREATED
    took = milliseconds_between(tasks.c.created_at, log.c.created_at)
    return (
        select(
            log.c.organization_id,
            minute_of(log.c.created_at).label("at"),
            tasks.c.provider,
            tasks.c.model,
            log.c.type,
            case((and_(is_end, way.in_(_WAYS)), way), else_=cast(null(), String)).label("way"),
            case((and_(is_end, is_correction), 1), else_=0).label("is_correction"),
            case((log.c.type == EventType.TASK_COMPLETED, took)).label("milliseconds"),
        )
        .select_from(log)
        .join(tasks, tasks.c.id == log.c.task_id)
    )


def _grouped(query: Select[Any]) -> Select[Any]:
    return _counted(query, ("organization_id", "at", "provider", "model", "type", "way", "is_correction"))


def _counted(query: Select[Any], names: tuple[str, ...]) -> Select[Any]:
    """Return the query for how many rows of another query, which has `most` at most, are alike."""
    # With a limit, what is selected is calculated once for each row, not again for each use in what selects from it.
    found = query.limit(bindparam("most", type_=Integer)).subquery()
    columns = (*(found.c[name] for name in names), bucket(found.c.milliseconds).label("bucket"))
    # By their numbers: the expression of the bucket is long.
    numbers: Iterator[ColumnElement[int]] = (literal_column(str(number)) for number in range(1, len(columns) + 1))
    return select(*columns, func.count().label("count")).group_by(*numbers)


def _is_in_part(key: ColumnElement[int]) -> ColumnElement[bool]:
    return and_(key > _AFTER, key <= _UNTIL)


def _table(log: str) -> Any:
    return events if log == "events" else delivery_attempts
