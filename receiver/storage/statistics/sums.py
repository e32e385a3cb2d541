"""Sums by minute, hour and day: collected from the counts of a part of a log, and added to the rows in one transaction.

That transaction first moves the log's position, on the condition that it is where the part begins. So a part is in the
sums exactly once, however many processes count it, and whatever happens to one of them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from msgspec import Struct, field
from sqlalchemy import Select, Table, and_, bindparam, delete, func, insert, or_, select, update

from models import EventType, StatisticStep
from receiver.domain.searched_values import searched_values
from receiver.domain.time_steps import start_of
from receiver.storage.statistics.counting import ALL_DELIVERIES, ALL_MODELS
from receiver.storage.tables import (
    delivery_attempts,
    delivery_statistics,
    statistic_positions,
    task_metadata_values,
    task_statistics,
    tasks,
)
from receiver.storage.transaction import Transaction

MINUTES_KEPT = timedelta(days=2)
STATISTICS = (task_statistics, delivery_statistics)
_KEYS_AT_ONCE = 100
Key = tuple[Any, ...]
Sums = Mapping[Key, Counter[Any]]
"""By the key of a minute: numbers by the column's name, and those of the histogram by the bucket's number."""


class _Form(Struct, frozen=True):
    """A table of sums: its key, which begins with the step, the columns that are added up, and the histogram."""

    table: Table
    key: tuple[str, ...]
    numbers: tuple[str, ...]
    histogram: str


_TASKS = _Form(
    task_statistics,
    ("step", "organization_id", "at", "provider", "model"),
    ("created", "completed", "failed", "cancelled", "by_webhook", "by_poll"),
    "durations",
)
_DELIVERIES = _Form(
    delivery_statistics,
    ("step", "organization_id", "at", "subscription_id"),
    ("attempts", "delivered", "dead"),
    "latencies",
)
_COLUMNS = {
    EventType.TASK_CREATED: "created",
    EventType.TASK_COMPLETED: "completed",
    EventType.TASK_FAILED: "failed",
    EventType.TASK_CANCELLED: "cancelled",
}


class CountedPart(Struct, frozen=True):
    """A part of a log that was counted: the row keys after `after` up to `until`, and what was in it."""

    log: str
    after: int
    until: int
    tasks: defaultdict[Key, Counter[Any]] = field(default_factory=lambda: defaultdict(Counter))
    deliveries: defaultdict[Key, Counter[Any]] = field(default_factory=lambda: defaultdict(Counter))
    values: list[dict[str, Any]] = field(default_factory=list)

    def add_task_events(self, rows: Iterable[Mapping[str, Any]], *, corrected: bool = False) -> None:
        """Add the counts of `counting.task_events`, or take away those of `corrected_ends`."""
        for row in rows:
            number = -row["count"] if corrected else row["count"]
            for whose in ((row["provider"], row["model"]), ALL_MODELS):
                sums = self.tasks[row["organization_id"], row["at"], *whose]
                sums[_COLUMNS[row["type"]]] += number
                if row["way"] is not None:
                    sums[f"by_{row['way']}"] += number
                if row["bucket"] is not None:
                    sums[row["bucket"]] += number

    def add_dead(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add the counts of `counting.dead_deliveries`."""
        for row in rows:
            for sums in self._deliveries_of(row):
                sums["dead"] += row["count"]

    def add_attempts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add the counts of `counting.attempts`."""
        for row in rows:
            for sums in self._deliveries_of(row):
                sums["attempts"] += row["count"]
                sums["delivered"] += row["count"] * row["is_delivered"]
                if row["bucket"] is not None:
                    sums[row["bucket"]] += row["count"]

    def add_metadata(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add the values of `counting.new_metadata`."""
        for row in rows:
            whose = {"organization_id": row["organization_id"], "task_id": row["id"]}
            self.values.extend({**whose, "value": value} for value in searched_values(row["metadata"]))

    def _deliveries_of(self, row: Mapping[str, Any]) -> list[Counter[Any]]:
        keys = {ALL_DELIVERIES, row["subscription_id"] or ALL_DELIVERIES}
        return [self.deliveries[row["organization_id"], row["at"], key] for key in keys]


@cache
def position_of(log: str) -> Select[Any]:
    """Return the query for how far a log is counted."""
    return select(statistic_positions).where(statistic_positions.c.log == log)


async def store(tx: Transaction, part: CountedPart, holder: str, held_until: datetime, now: datetime) -> bool:
    """Add a part of a log to the sums; return False, and add nothing, if another process has counted it."""
    moved = await tx.execute(
        update(statistic_positions)
        .where(statistic_positions.c.log == part.log, statistic_positions.c.position == part.after)
        .values(position=part.until, holder=holder, held_until=held_until)
        .returning(statistic_positions.c.position)
    )
    if not moved:
        return False
    await _add(tx, _TASKS, part.tasks, now)
    await _add(tx, _DELIVERIES, part.deliveries, now)
    await _insert_values(tx, part.values)
    return True


async def lower_position(tx: Transaction) -> None:
    """Take the position of attempts back to the newest one that there is, after a purge on SQLite.

    SQLite gives the greatest row keys out again when their rows are deleted, which may be all rows of a service that
    did nothing for long. Not for PostgreSQL: its keys never come again, and a row may not be visible yet.
    """
    greatest = select(func.coalesce(func.max(delivery_attempts.c.id), 0)).scalar_subquery()
    table = statistic_positions.c
    await tx.execute(
        update(statistic_positions).where(table.log == "attempts", table.position > greatest).values(position=greatest)
    )


def oldest_sums(table: Table, step: StatisticStep, before: datetime) -> Select[Any]:
    """Return the query for the time of the oldest sums of a step before a time, as `at`; null if there are none."""
    return select(func.min(table.c.at).label("at")).where(table.c.step == step, table.c.at < before)


async def purge_sums(tx: Transaction, table: Table, step: StatisticStep, at: datetime) -> int:
    """Delete the sums of one minute, hour or day; return how many rows that were."""
    is_of = and_(table.c.step == step, table.c.at == at)
    return len(await tx.execute(delete(table).where(is_of).returning(table.c.at)))


async def _add(tx: Transaction, form: _Form, sums: Sums, now: datetime) -> None:
    oldest_minute = now - MINUTES_KEPT
    added = {(step, *key): each for step in StatisticStep for key, each in _by_step(sums, step, oldest_minute).items()}
    known = await _rows(tx, form, list(added))
    new = [_row(form, key, each, None) for key, each in added.items() if key not in known]
    old = [_row(form, key, each, known[key]) for key, each in added.items() if key in known]
    if new:
        await tx.execute(insert(form.table), new)
    if old:
        await tx.execute(_replace(form), [{f"of_{name}": value for name, value in row.items()} for row in old])


def _by_step(sums: Sums, step: StatisticStep, oldest_minute: datetime) -> dict[Key, Counter[Any]]:
    """Return the sums of minutes as those of a longer step; minutes themselves without those that would be purged."""
    found: defaultdict[Key, Counter[Any]] = defaultdict(Counter)
    for (organization_id, at, *rest), numbers in sums.items():
        if step != StatisticStep.MINUTE or at >= oldest_minute:
            each = found[organization_id, start_of(step, at), *rest]
            for name, number in numbers.items():
                each[name] += number
    return found


async def _rows(tx: Transaction, form: _Form, keys: Sequence[Key]) -> dict[Key, Mapping[str, Any]]:
    columns = [form.table.c[name] for name in form.key]
    found: dict[Key, Mapping[str, Any]] = {}
    for first in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[first : first + _KEYS_AT_ONCE]
        is_one = or_(*(and_(*(column == value for column, value in zip(columns, key, strict=True))) for key in some))
        for row in await tx.execute(select(form.table).where(is_one)):
            mapping = dict(row._mapping)
            found[tuple(mapping[name] for name in form.key)] = mapping
    return found


def _row(form: _Form, key: Key, added: Counter[Any], known: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a row with what is added to it."""
    row = dict(zip(form.key, key, strict=True))
    for name in form.numbers:
        row[name] = (known[name] if known else 0) + added[name]
    histogram = Counter(known[form.histogram] if known else {})
    for bucket, number in added.items():
        if isinstance(bucket, int):
            histogram[str(bucket)] += number
    row[form.histogram] = {bucket: number for bucket, number in histogram.items() if number}
    return row


@cache
def _replace(form: _Form) -> Any:
    table = form.table.c
    is_row = and_(*(table[name] == bindparam(f"of_{name}", type_=table[name].type) for name in form.key))
    changed = (*form.numbers, form.histogram)
    values = {name: bindparam(f"of_{name}", type_=table[name].type) for name in changed}
    return update(form.table).where(is_row).values(values)


async def _insert_values(tx: Transaction, values: Sequence[dict[str, Any]]) -> None:
    """Insert values of metadata, without those of tasks that are purged meanwhile, and without those that are there."""
    for first in range(0, len(values), _KEYS_AT_ONCE * 5):
        some = values[first : first + _KEYS_AT_ONCE * 5]
        keys = {each["task_id"] for each in some}
        there = {row.id for row in await tx.execute(select(tasks.c.id).where(tasks.c.id.in_(keys)))}
        table = task_metadata_values.c
        known = await tx.execute(select(table.task_id, table.value).where(table.task_id.in_(keys)))
        pairs = {(row.task_id, row.value) for row in known}
        new = [each for each in some if each["task_id"] in there and (each["task_id"], each["value"]) not in pairs]
        if new:
            await tx.execute(insert(task_metadata_values), new)
