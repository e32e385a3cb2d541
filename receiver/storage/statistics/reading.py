"""Queries for the sums that are stored. Each reads as many rows as the range has steps, times the models in it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, func, or_, select

from models import StatisticStep
from receiver.domain.time_steps import TimeSpan
from receiver.storage.statistics.counting import ALL_MODELS
from receiver.storage.tables import delivery_attempts, delivery_statistics, events, statistic_positions, task_statistics

_TASK_NUMBERS = ("created", "completed", "failed", "cancelled", "by_webhook", "by_poll")
_DELIVERY_NUMBERS = tuple(delivery_statistics.c[name] for name in ("attempts", "delivered", "dead"))


def task_series(
    organization_id: int, step: StatisticStep, since: datetime, until: datetime, model: str | None
) -> Select[Any]:
    """Return the query for the sums of each step that has any: `at`, and the numbers by their names."""
    table = task_statistics.c
    is_in = _is_in(task_statistics, organization_id, [(step, since, until)])
    is_one = and_(table.provider == ALL_MODELS[0], table.model == ALL_MODELS[1]) if model is None else _has(model)
    sums = (func.sum(table[name]).label(name) for name in _TASK_NUMBERS)
    return select(table.at, *sums).where(is_in, is_one).group_by(table.at)


def task_sums(organization_id: int, ranges: Sequence[TimeSpan], model: str | None) -> Select[Any]:
    """Return the query for the rows of several ranges: provider, model, the numbers and `durations`."""
    table = task_statistics.c
    is_wanted = _is_in(task_statistics, organization_id, ranges)
    columns = (table.provider, table.model, *(table[name] for name in _TASK_NUMBERS), table.durations)
    return select(*columns).where(is_wanted, table.provider != ALL_MODELS[0] if model is None else _has(model))


def delivery_series(organization_id: int, subscription_id: int, span: TimeSpan) -> Select[Any]:
    """Return the query for the rows of one span: `at` and the numbers."""
    table = delivery_statistics.c
    return _of_subscription(organization_id, subscription_id, [span], (table.at, *_DELIVERY_NUMBERS))


def delivery_sums(organization_id: int, subscription_id: int, ranges: Sequence[TimeSpan]) -> Select[Any]:
    """Return the query for the rows of several ranges: the numbers and `latencies`."""
    wanted = (*_DELIVERY_NUMBERS, delivery_statistics.c.latencies)
    return _of_subscription(organization_id, subscription_id, ranges, wanted)


def delivery_totals(organization_id: int, subscription_ids: Sequence[int], span: TimeSpan) -> Select[Any]:
    """Return the query for the sums of several subscriptions over one span: `subscription_id` and the numbers."""
    table = delivery_statistics.c
    sums = (func.sum(number).label(number.name) for number in _DELIVERY_NUMBERS)
    is_in = _is_in(delivery_statistics, organization_id, [span])
    query = select(table.subscription_id, *sums).where(is_in, table.subscription_id.in_(subscription_ids))
    return query.group_by(table.subscription_id)


def first_uncounted() -> Select[Any]:
    """Return the query for when the first event, and the first attempt, happened that is not in the sums yet.

    Columns `event` and `attempt`, each null where all are counted.
    """
    event = _first_after("events", events, events.c.created_at)
    attempt = _first_after("attempts", delivery_attempts, delivery_attempts.c.started_at)
    return select(event.label("event"), attempt.label("attempt"))


def _has(model: str) -> ColumnElement[bool]:
    return and_(task_statistics.c.provider != ALL_MODELS[0], task_statistics.c.model == model)


def _of_subscription(
    organization_id: int, subscription_id: int, ranges: Sequence[TimeSpan], columns: Sequence[ColumnElement[Any]]
) -> Select[Any]:
    is_in = _is_in(delivery_statistics, organization_id, ranges)
    return select(*columns).where(is_in, delivery_statistics.c.subscription_id == subscription_id)


def _first_after(log: str, table: Table, moment: ColumnElement[datetime]) -> Any:
    position = select(statistic_positions.c.position).where(statistic_positions.c.log == log).scalar_subquery()
    return select(moment).where(table.c.id > position).order_by(table.c.id).limit(1).scalar_subquery()


def _is_in(table: Table, organization_id: int, ranges: Sequence[TimeSpan]) -> ColumnElement[bool]:
    spans = (and_(table.c.step == step, table.c.at >= since, table.c.at < until) for step, since, until in ranges)
    return and_(table.c.organization_id == organization_id, or_(*spans))
