"""The range of time that a report is about, and where the rows of that range begin."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Select, Table, and_, func, select

from receiver.storage.tables import events, runs, tasks


class ReportWindow(Struct, frozen=True, kw_only=True):
    """The rows of an organization that were created from `since` on; `until` is the present moment.

    Rows from after `until` belong to it too: a clock was set back since they were written. What was due before
    `overdue_before` and has not been done is overdue.
    """

    organization_id: int
    since: datetime
    until: datetime
    overdue_before: datetime


class Chunk(Struct, frozen=True):
    """The rows of a window whose keys are from `first` to `last`, so that no query takes long."""

    window: ReportWindow
    first: int
    last: int

    def rows_of(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that a row of `table` belongs to this chunk."""
        columns = table.columns
        return and_(
            columns.id.between(self.first, self.last),
            # Not as a plain column: without statistics SQLite would take an index on it before the range of keys.
            columns.organization_id + 0 == self.window.organization_id,
            columns.created_at >= self.window.since,
        )


class KeysInTime(Struct, frozen=True):
    """How to find the keys of a table by the age of its rows; they are in the order of time, all but exactly.

    `last` is the query for the greatest key as `id`, null if there is no row. `row_from` returns the query for
    (id, created_at) of the first row from a key on.
    """

    last: Select[Any]
    row_from: Callable[[int], Select[Any]]


def _event_from(key: int) -> Select[Any]:
    return select(events.c.id, events.c.created_at).where(events.c.id >= key).order_by(events.c.id).limit(1)


def _run_from(key: int) -> Select[Any]:
    return select(runs.c.id, runs.c.created_at).where(runs.c.id >= key).order_by(runs.c.id).limit(1)


def _task_from(key: int) -> Select[Any]:
    # The first event of a task is as old as its row, by Ringback's clock; `created_at` of an adopted task is not.
    first = select(events.c.task_id.label("id"), events.c.created_at).where(events.c.task_id >= key)
    return first.order_by(events.c.task_id, events.c.id).limit(1)


TASK_KEYS = KeysInTime(select(func.max(tasks.c.id).label("id")), _task_from)
RUN_KEYS = KeysInTime(select(func.max(runs.c.id).label("id")), _run_from)
EVENT_KEYS = KeysInTime(select(func.max(events.c.id).label("id")), _event_from)
