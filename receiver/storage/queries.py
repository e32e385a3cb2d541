"""What the API reads: tasks, events and subscriptions, by organization, newest first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Select, String, and_, case, cast, func, or_, select
from sqlalchemy.ext.compiler import compiles

from models import TERMINAL, SubscriptionKind, TaskStatus
from receiver.domain.ids import is_id
from receiver.storage.tables import events, organizations, subscriptions, tasks

_WITH_CALLBACK = select(tasks, subscriptions.c.endpoint_url.label("callback_url")).select_from(
    tasks.outerjoin(subscriptions, tasks.c.callback_id == subscriptions.c.id)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks. `before` is the key that a cursor stands for: only older ones."""

    organization_id: int
    status: str | None = None
    model: str | None = None
    task_type: str | None = None
    run_uid: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    before: int | None = None


def task_by_id(organization_id: int, task_id: str) -> Select[Any]:
    """Return the query for one task, by Ringback's id or by the provider's."""
    names = [tasks.c.provider_task_id == task_id]
    if is_id(task_id):
        names.append(tasks.c.uid == task_id)
    return _WITH_CALLBACK.where(tasks.c.organization_id == organization_id, or_(*names)).order_by(tasks.c.id).limit(1)


def task_ids_among(organization_id: int, uids: Sequence[str]) -> Select[Any]:
    """Return the query for those of these outer ids that are of tasks."""
    return select(tasks.c.uid).where(tasks.c.organization_id == organization_id, tasks.c.uid.in_(uids))


def tasks_matching(wanted: TaskFilter, limit: int, offset: int = 0) -> Select[Any]:
    """Return the query for a page of tasks, newest first."""
    query = _WITH_CALLBACK.where(_matches(wanted)).order_by(tasks.c.id.desc()).limit(limit)
    return query.offset(offset) if offset else query


def count_tasks(wanted: TaskFilter) -> Select[Any]:
    """Return the query that counts them."""
    return select(func.count().label("count")).select_from(tasks).where(_matches(wanted))


def active_tasks(organization_id: int) -> Select[Any]:
    """Return the query for (model, status, count) of what has not ended."""
    return (
        select(tasks.c.model, tasks.c.status, func.count().label("count"))
        .where(
            tasks.c.organization_id == organization_id,
            tasks.c.status.in_([status for status in TaskStatus if status not in TERMINAL]),
        )
        .group_by(tasks.c.model, tasks.c.status)
    )


def events_of_task(task_key: int, limit: int, before: int | None) -> Select[Any]:
    """Return the query for a page of a task's events, newest first."""
    query = select(events).where(events.c.task_id == task_key).order_by(events.c.id.desc()).limit(limit)
    return query if before is None else query.where(events.c.id < before)


def webhooks(organization_id: int, limit: int, before: int | None) -> Select[Any]:
    """Return the query for a page of registered subscriptions, newest first."""
    query = select(subscriptions).where(_registered(organization_id)).order_by(subscriptions.c.id.desc()).limit(limit)
    return query if before is None else query.where(subscriptions.c.id < before)


def webhook_by_id(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for one registered subscription, with its organization's outer id."""
    return (
        select(subscriptions, organizations.c.uid.label("organization_uid"))
        .join(organizations, organizations.c.id == subscriptions.c.organization_id)
        .where(_registered(organization_id), subscriptions.c.uid == uid)
    )


def _registered(organization_id: int) -> Any:
    return and_(
        subscriptions.c.organization_id == organization_id,
        subscriptions.c.kind == SubscriptionKind.REGISTERED,
        subscriptions.c.deleted_at.is_(None),
    )


def _matches(wanted: TaskFilter) -> Any:
    conditions = [tasks.c.organization_id == wanted.organization_id]
    for column, value in (
        (tasks.c.status, wanted.status),
        (tasks.c.model, wanted.model),
        (tasks.c.task_type, wanted.task_type),
        (tasks.c.run_uid, wanted.run_uid),
    ):
        if value is not None:
            conditions.append(column == value)
    if wanted.created_after is not None:
        conditions.append(tasks.c.created_at > wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(tasks.c.created_at < wanted.created_before)
    if wanted.before is not None:
        conditions.append(tasks.c.id < wanted.before)
    conditions.extend(has_metadata(tasks.c.metadata, name, value) for name, value in wanted.metadata.items())
    return and_(*conditions)


class has_metadata(ColumnElement[bool]):  # noqa: N801 - it reads as a function, as SQLAlchemy's own do
    """The condition that a document has this value by this name; what is no text is meant as JSON writes it."""

    type = Boolean()
    inherit_cache = False

    def __init__(self, document: ColumnElement[Any], name: str, value: str) -> None:
        self.document = document
        self.name = name
        self.value = value


@compiles(has_metadata, "sqlite")
def _is_labelled_on_sqlite(element: has_metadata, compiler: Any, **options: Any) -> str:
    member = func.json_each(element.document).table_valued("key", "type", "atom")
    written = case((member.c.type.in_(("true", "false", "null")), member.c.type), else_=cast(member.c.atom, String))
    found = select(member.c.key).where(member.c.key == element.name, written == element.value).exists()
    return str(compiler.process(found, **options))


@compiles(has_metadata, "postgresql")
def _is_labelled_on_postgresql(element: has_metadata, compiler: Any, **options: Any) -> str:
    member = element.document[element.name]
    written = case(
        (func.jsonb_typeof(member) == "null", "null"),
        else_=func.jsonb_extract_path_text(element.document, element.name),
    )
    return str(compiler.process(written == element.value, **options))
