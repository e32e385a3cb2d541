"""Events: the queries of lists, streams and the feed."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct, field
from sqlalchemy import ColumnElement, FromClause, Select, and_, func, literal_column, or_, select

from models import EventType
from models.states import FREQUENT_TYPES
from receiver.domain.ids import is_id
from receiver.domain.matching import matches
from receiver.storage.large_rows import LargeRows, bytes_of
from receiver.storage.tables import events, organizations, runs, tasks
from receiver.storage.tasks import brief_columns

FILTERS = ("model", "task_type", "run_id")
"""The filters of a subscription that a list or a stream of events has too."""


class FilterableEvent(Protocol):
    """What a filter needs to know of an event."""

    @property
    def organization_id(self) -> int:
        """The row key of its organization."""
        ...

    @property
    def type(self) -> str:
        """Its type."""
        ...

    @property
    def task_uid(self) -> str | None:
        """The id of its task; None for an event of no task."""
        ...

    @property
    def model(self) -> str | None:
        """The model of its task; None for an event of no task."""
        ...

    @property
    def task_type(self) -> str | None:
        """The type of its task; None for an event of no task."""
        ...

    @property
    def run_uid(self) -> str | None:
        """The id of its run; None for an event of no run."""
        ...


class EventFilter(Struct, frozen=True, kw_only=True):
    """Which events to read: of these types, of tasks that pass these filters (`FILTERS`), of one task only.

    As for a subscription, an event of no task passes the filters for tasks.
    """

    organization_id: int
    types: frozenset[str] | None = None
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    task_uid: str | None = None

    def admits(self, event: FilterableEvent) -> bool:
        """Return whether an event in memory passes, as the queries below decide it for one in the table."""
        return (
            event.organization_id == self.organization_id
            and (self.types is None or event.type in self.types)
            and (self.task_uid is None or event.task_uid == self.task_uid)
            and matches(
                self.filters, model=event.model, task_type=event.task_type, metadata=None, run_uid=event.run_uid
            )
        )


# As it stands in a partial index, which is not used where parameters stand in its place.
_IS_RARE = and_(*(events.c.type != literal_column(f"'{each}'") for each in FREQUENT_TYPES))
_EVENTS_AND_TASKS = events.outerjoin(tasks, tasks.c.id == events.c.task_id)
_WITH_TASK = select(
    *(column.label(f"event_{column.name}") for column in events.c),
    *(column.label(f"task_{column.name}") for column in tasks.c),
).select_from(_EVENTS_AND_TASKS)


def matched_events(*columns: ColumnElement[Any], among: FromClause = events) -> Select[Any]:
    """Return the query for events with their keys, all that the filters of subscriptions compare, and these columns.

    `among` is the table of events, or a join with it that SQLite is to begin with.
    """
    metadata = func.coalesce(tasks.c.metadata, runs.c.metadata).label("metadata")
    return (
        select(events.c.id, events.c.type, events.c.run_uid, tasks.c.model, tasks.c.task_type, metadata, *columns)
        .select_from(among)
        .outerjoin(tasks, tasks.c.id == events.c.task_id)
        .outerjoin(runs, runs.c.uid == events.c.run_uid)
    )


def events_before(wanted: EventFilter, before: int | None, limit: int, since: int | None = None) -> Select[Any]:
    """Return the query for a page of events, newest first; `before` is the row key that a cursor stands for.

    `since` is the row key of the oldest event that is looked at.
    """
    query = _WITH_TASK.where(*_conditions(wanted)).order_by(events.c.id.desc()).limit(limit)
    query = query if before is None else query.where(events.c.id < before)
    return query if since is None else query.where(events.c.id >= since)


def event_beyond(organization_id: int, before: int | None, most: int) -> Select[Any]:
    """Return the query for the event before a position that follows on `most` others: `id` and `created_at`."""
    keys = select(events.c.id).where(events.c.organization_id == organization_id)
    keys = keys if before is None else keys.where(events.c.id < before)
    found = keys.order_by(events.c.id.desc()).offset(most).limit(1).scalar_subquery()
    return select(events.c.id, events.c.created_at).where(events.c.id == found)


def events_between(wanted: EventFilter, after: int, until: int, limit: int) -> Select[Any]:
    """Return the query for events after one sequence number and up to another, oldest first."""
    return (
        _WITH_TASK.where(*_conditions(wanted), events.c.id > after, events.c.id <= until)
        .order_by(events.c.id)
        .limit(limit)
    )


def events_of_task(task_key: int, limit: int, before: int | None) -> Select[Any]:
    """Return the query for a page of a task's events, newest first."""
    query = select(events).where(events.c.task_id == task_key).order_by(events.c.id.desc()).limit(limit)
    return query if before is None else query.where(events.c.id < before)


def events_of_run(run_uid: str, limit: int, before: int | None) -> Select[Any]:
    """Return the query for a page of the events of a run and of the tasks of its steps, newest first.

    Whose run it is has to be known before: with that as a condition SQLite would read all events of the organization.
    """
    query = _WITH_TASK.where(events.c.run_uid == run_uid).order_by(events.c.id.desc()).limit(limit)
    return query if before is None else query.where(events.c.id < before)


def large_events(query: Select[Any], *, brief: bool = False) -> LargeRows:
    """Return a query of events with their tasks so that it can be read in pieces; `brief` without what may be large."""
    if brief:
        return LargeRows(_brief(query), events.c.id, bytes_of(events), name="event_id")
    return LargeRows(query, events.c.id, bytes_of(events, tasks), name="event_id")


def large_events_of_task(query: Select[Any]) -> LargeRows:
    """Return a query of a task's events so that it can be read in pieces."""
    return LargeRows(query, events.c.id, bytes_of(events))


def newest_cancellation(*, task_key: int | None = None, run_uid: str | None = None) -> Select[Any]:
    """Return the query for the number of the last event that a task, or a run, was cancelled, as `newest`; or null."""
    of_task = and_(events.c.task_id == task_key, events.c.type == EventType.TASK_CANCELLED)
    of_run = and_(events.c.run_uid == run_uid, events.c.type == EventType.RUN_CANCELLED)
    return select(func.max(events.c.id).label("newest")).where(of_run if task_key is None else of_task)


def event_key(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for an event's row key."""
    return select(events.c.id).where(events.c.organization_id == organization_id, events.c.uid == uid)


def events_by_sequence(sequences: Collection[int]) -> Select[Any]:
    """Return the query for the events with these sequence numbers, in any order; a purged one is left out."""
    return _WITH_TASK.where(events.c.id.in_(sequences))


def events_after(after: int, limit: int) -> Select[Any]:
    """Return the query for the events of all organizations after a sequence number, as the feed needs them."""
    wanted = (events.c.uid, events.c.organization_id, events.c.type, events.c.created_at, events.c.run_uid)
    return (
        select(events.c.id.label("sequence"), *wanted, tasks.c.uid.label("task_uid"), tasks.c.model, tasks.c.task_type)
        .select_from(_EVENTS_AND_TASKS)
        .where(events.c.id > after)
        .order_by(events.c.id)
        .limit(limit)
    )


def newest_event() -> Select[Any]:
    """Return the query for the newest sequence number as `newest`; null if there is no event."""
    return select(func.max(events.c.id).label("newest"))


def first_event_after(sequence: int) -> Select[Any]:
    """Return the query for the next sequence number, of any organization, as `first`; null if there is none."""
    return select(func.min(events.c.id).label("first")).where(events.c.id > sequence)


def kept_events(organization_id: int) -> Select[Any]:
    """Return the query for an organization's oldest sequence number, and how far its events are purged.

    Either is null where there is none.
    """
    oldest = select(func.min(events.c.id)).where(events.c.organization_id == organization_id)
    wanted = (oldest.scalar_subquery().label("oldest"), organizations.c.purged_event.label("purged"))
    return select(*wanted).where(organizations.c.id == organization_id)


def event_and_task(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Split a row of these queries into the event's columns and its task's columns, None for an event of no task."""
    event = {column.name: row[f"event_{column.name}"] for column in events.c}
    if row["task_id"] is None:
        return event, None
    return event, {column.name: row[f"task_{column.name}"] for column in tasks.c}


def _brief(query: Select[Any]) -> Select[Any]:
    """Return the query for the same events with null for the columns of their tasks that may be large."""
    of_tasks = (column.label(f"task_{column.name}") for column in brief_columns())
    return query.with_only_columns(*(column.label(f"event_{column.name}") for column in events.c), *of_tasks)


def _conditions(wanted: EventFilter) -> list[ColumnElement[bool]]:
    conditions = [events.c.organization_id == wanted.organization_id]
    if wanted.types is not None:
        conditions.append(events.c.type.in_(sorted(wanted.types)))
        if wanted.types.isdisjoint(FREQUENT_TYPES):
            conditions.append(_IS_RARE)
    if wanted.task_uid is not None:
        conditions.append(tasks.c.uid == wanted.task_uid)
    for name, values in wanted.filters.items():
        if name == "run_id":
            of_neither = and_(events.c.task_id.is_(None), events.c.run_uid.is_(None))
            conditions.append(or_(of_neither, events.c.run_uid.in_([each for each in values if is_id(each)])))
        else:
            conditions.append(or_(events.c.task_id.is_(None), tasks.c[name].in_(values)))
    return conditions
