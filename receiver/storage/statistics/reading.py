"""Queries for the sums that are stored. Each reads as many rows as the range has steps, times the models in it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, func, or_, select

from models import StatisticStep
from receiver.domain.time_steps import TimeSpan
from receiver.storage.statistics.counting import ALL_MODELS
from receiver.storage.statistics.expressions import documents_of, rows_by_time
from receiver.storage.tables import delivery_attempts, delivery_statistics, events, statistic_positions, task_statistics

TASK_NUMBERS = ("created", "completed", "failed", "cancelled")
"""The numbers of a series of tasks."""
DELIVERY_NUMBERS = ("attempts", "delivered", "dead")
"""The numbers of a series of deliveries."""


def task_series(
    organization_id: int, step: StatisticStep, since: datetime, until: datetime, model: str | None
) -> Select[Any]:
    """Return the query for the sums of each step that has any: in one row `series`, a list or null.

    Each is a list: when the step begins, in seconds since 1970, and `TASK_NUMBERS`.
    """
    table = task_statistics.c
    is_in = _is_in(task_statistics, organization_id, [(step, since, until)])
    if model is None:  # one row of each step
        numbers = (table[name] for name in TASK_NUMBERS)
        is_all = and_(table.provider == ALL_MODELS[0], table.model == ALL_MODELS[1])
        return select(rows_by_time(table.at, *numbers).label("series")).where(is_in, is_all)
    sums = (func.sum(table[name]).label(name) for name in TASK_NUMBERS)
    found = select(table.at, *sums).where(is_in, _has(model)).group_by(table.at).subquery().c
    return select(rows_by_time(found.at, *(found[name] for name in TASK_NUMBERS)).label("series"))


def task_sums(organization_id: int, ranges: Sequence[TimeSpan], model: str | None) -> Select[Any]:
    """Return the query for the sums of several ranges by model: provider, model, the numbers, and `histograms`.

    These are a list of durations that are to be merged. The numbers are `TASK_NUMBERS`, by_webhook and by_poll.
    """
    table = task_statistics.c
    is_wanted = _is_in(task_statistics, organization_id, ranges)
    sums = (func.sum(table[name]).label(name) for name in (*TASK_NUMBERS, "by_webhook", "by_poll"))
    return (
        select(table.provider, table.model, *sums, documents_of(table.durations).label("histograms"))
        .where(is_wanted, table.provider != ALL_MODELS[0] if model is None else _has(model))
        .group_by(table.provider, table.model)
    )


def delivery_series(organization_id: int, subscription_id: int, span: TimeSpan) -> Select[Any]:
    """Return the query for the rows of one span, in the form of `task_series`, with `DELIVERY_NUMBERS`."""
    table = delivery_statistics.c
    found = rows_by_time(table.at, *(table[name] for name in DELIVERY_NUMBERS))
    return select(found.label("series")).where(_is_of(organization_id, subscription_id, [span]))


def delivery_sums(organization_id: int, subscription_id: int, ranges: Sequence[TimeSpan]) -> Select[Any]:
    """Return the query for one row: the sums of `DELIVERY_NUMBERS`, null if there are none, and `histograms`."""
    table = delivery_statistics.c
    sums = (func.sum(table[name]).label(name) for name in DELIVERY_NUMBERS)
    found = select(*sums, documents_of(table.latencies).label("histograms"))
    return found.where(_is_of(organization_id, subscription_id, ranges))


def delivery_totals(organization_id: int, subscription_ids: Sequence[int], span: TimeSpan) -> Select[Any]:
    """Return the query for the sums of several subscriptions over one span: `subscription_id` and the numbers."""
    table = delivery_statistics.c
    sums = (func.sum(table[name]).label(name) for name in DELIVERY_NUMBERS)
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


def _is_of(organization_id: int, subscription_id: int, ranges: Sequence[TimeSpan]) -> ColumnElement[bool]:
    is_in = _is_in(delivery_statistics, organization_id, ranges)
    return and_(is_in, delivery_statistics.c.subscription_id == subscription_id)


def _first_after(log: str, table: Table, moment: ColumnElement[datetime]) -> Any:
    position = select(statistic_positions.c.position).where(statistic_positions.c.log == log).scalar_subquery()
    return select(moment).where(table.c.id > position).order_by(table.c.id).limit(1).scalar_subquery()


def _is_in(table: Table, organization_id: int, ranges: Sequence[TimeSpan]) -> ColumnElement[bool]:
    spans = (and_(table.c.step == step, table.c.at >= since, table.c.at < until) for step, since, until in ranges)
    return and_(table.c.organization_id == organization_id, or_(*spans))
