"""Tasks: the row of a new task, the queries of the API, and those of tracking."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from msgspec import field
from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    cast,
    func,
    insert,
    null,
    or_,
    select,
    type_coerce,
    update,
)

from models import TERMINAL, Submission, TaskStatus
from models.columns import DocumentType
from receiver.domain.decisions import STORED_ONCE
from receiver.domain.ids import is_id
from receiver.domain.searched_values import searched_values
from receiver.storage.large_rows import SMALL_BYTES, LargeRows, bytes_of, document_bytes
from receiver.storage.metadata_filter import has_metadata
from receiver.storage.page_filter import PageFilter
from receiver.storage.tables import subscriptions, task_metadata_values, tasks
from receiver.storage.transaction import Transaction, Values

MOST_MODELS = 1000
"""How many models of an organization are looked at to find those of a family."""

_SMALL_OUTPUT = 4096
"""Bytes, as stored."""
_TO_CANCEL = (
    *("uid", "organization_id", "provider", "account_id", "model", "task_type", "provider_task_id", "handle"),
    *("status", "attempt", "trace_context"),
)
_LARGE_COLUMNS = frozenset({"input", "output", "logs", "config", "detail", "meta"})
"""Those of which a list may do without."""
_MOST_RANKED = 20_000
"""Of how many tasks that have not ended the newest of each model are found."""

_WITH_CALLBACK = select(tasks, subscriptions.c.endpoint_url.label("callback_url")).select_from(
    tasks.outerjoin(subscriptions, tasks.c.callback_id == subscriptions.c.id)
)


class TaskFilter(PageFilter, frozen=True, kw_only=True):
    """Which tasks to list; `metadata` has the names and values that their metadata must have.

    `models` are several models, any of which a task may have; None for any model.
    """

    status: str | None = None
    model: str | None = None
    models: Sequence[str] | None = None
    task_type: str | None = None
    provider: str | None = None
    run_uid: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def new_task(
    *,
    uid: str,
    organization_id: int,
    provider: str,
    model: str,
    task_type: str,
    input: Any,
    submission: Submission,
    now: datetime,
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    callback_id: int | None = None,
    run_uid: str | None = None,
    step: str | None = None,
    trace_context: str | None = None,
    bulk: bool = False,
    attempt: int = 1,
    max_attempts: int = 1,
    backoff_seconds: float = 1.0,
    provider_task_id: str | None = None,
    handle: Mapping[str, Any] | None = None,
    account_id: int | None = None,
    created_at: datetime | None = None,
    submitted_at: datetime | None = None,
    due_at: datetime | None = None,
    leased: bool = False,
) -> dict[str, Any]:
    """Return the row of a new task: `queued`, and by default created now and due now.

    Every row has the same columns, so that any of them can be inserted together.
    """
    return {
        "uid": uid,
        "organization_id": organization_id,
        "provider": provider,
        "account_id": account_id,
        "model": model,
        "task_type": task_type,
        "bulk": bulk,
        "status": TaskStatus.QUEUED,
        "submission": submission,
        "attempt": attempt,
        "max_attempts": max_attempts,
        "backoff_seconds": backoff_seconds,
        "provider_task_id": provider_task_id,
        "handle": handle,
        "progress": 0,
        "revision": "",
        "input": input,
        "config": config,
        "metadata": metadata,
        "callback_id": callback_id,
        "run_uid": run_uid,
        "step": step,
        "trace_context": trace_context,
        "created_at": created_at or now,
        "updated_at": now,
        "submitted_at": submitted_at,
        "last_update_at": now,
        "due_at": due_at or now,
        "leased": leased,
        "poll_count": 0,
    }


def task_by_id(organization_id: int, task_id: str) -> Select[Any]:
    """Return the query for one task, by Ringback's id or by the provider's."""
    return _by_id(organization_id, task_id, by_uid=is_id(task_id))


def _by_id(organization_id: Any, task_id: Any, *, by_uid: bool) -> Select[Any]:
    has_id = [tasks.c.provider_task_id == task_id]
    if by_uid:
        has_id.append(tasks.c.uid == task_id)
    return _WITH_CALLBACK.where(tasks.c.organization_id == organization_id, or_(*has_id)).order_by(tasks.c.id).limit(1)


def task_if_small(organization_id: int, task_id: str) -> tuple[Select[Any], Values]:
    """Return the query of `task_by_id` that leaves out the documents of a task whose `stored_bytes` are many.

    It comes with its parameters: building it takes as long as all the rest of a request.
    """
    return _if_small(is_id(task_id)), {"of_organization": organization_id, "task_id": task_id}


def task_without_input(organization_id: int, uid: str) -> tuple[Select[Any], Values]:
    """Return the query of one task that leaves out its input, with its parameters."""
    return _without_input(), {"of_organization": organization_id, "task_id": uid}


@cache
def _without_input() -> Select[Any]:
    return _one(
        (column if column is not tasks.c.input else cast(null(), column.type).label(column.name) for column in tasks.c),
        by_uid=True,
    )


@cache
def _if_small(by_uid: bool) -> Select[Any]:
    return _one(
        (
            column
            if not isinstance(column.type, DocumentType)
            else type_coerce(case((tasks.c.stored_bytes <= SMALL_BYTES, column)), column.type).label(column.name)
            for column in tasks.c
        ),
        by_uid=by_uid,
    )


def _one(columns: Iterable[ColumnElement[Any]], *, by_uid: bool) -> Select[Any]:
    query = _by_id(bindparam("of_organization"), bindparam("task_id"), by_uid=by_uid)
    return query.with_only_columns(*columns, subscriptions.c.endpoint_url.label("callback_url"))


def task_by_uid(uid: str) -> Select[Any]:
    """Return the query for the whole row of one task of any organization."""
    return select(tasks).where(tasks.c.uid == uid)


def task_ids_among(organization_id: int, uids: Sequence[str]) -> Select[Any]:
    """Return the query for those of these ids that belong to tasks of the organization."""
    return select(tasks.c.uid).where(tasks.c.organization_id == organization_id, tasks.c.uid.in_(uids))


def tasks_matching(wanted: TaskFilter, limit: int, offset: int = 0) -> Select[Any]:
    """Return the query for a page of tasks, newest first."""
    if wanted.models is None:
        return _page(_WITH_CALLBACK.where(is_wanted(wanted)), limit, offset)
    # The tasks of several models are not in the order of one index. Their keys alone are sorted, not the whole rows.
    keys = _sorted_page(select(tasks.c.id).where(is_wanted(wanted)), limit, offset).subquery()
    return _WITH_CALLBACK.where(tasks.c.id.in_(select(keys.c.id))).order_by(tasks.c.id.desc())


def tasks_by_keys(keys: Sequence[int]) -> Select[Any]:
    """Return the query for tasks by their row keys, newest first."""
    return _WITH_CALLBACK.where(tasks.c.id.in_(keys)).order_by(tasks.c.id.desc())


def brief_tasks(query: Select[Any]) -> Select[Any]:
    """Return the query for the same tasks with null for the columns that may be large."""
    return query.with_only_columns(*brief_columns())


def brief_columns() -> list[ColumnElement[Any]]:
    """Return the columns of a task by their names, with null for those that may be large."""
    return [
        cast(null(), column.type).label(column.name) if column.name in _LARGE_COLUMNS else column for column in tasks.c
    ]


def large_tasks(query: Select[Any]) -> LargeRows:
    """Return the query of a page of tasks so that it can be read in pieces."""
    return LargeRows(query, tasks.c.id, bytes_of(tasks))


def shortened_tasks(keys: Sequence[int]) -> Select[Any]:
    """Return the query for tasks by their row keys, newest first, without documents but for a small output."""
    output = case((document_bytes(tasks.c.output) <= _SMALL_OUTPUT, tasks.c.output))
    columns = [
        column if not isinstance(column.type, DocumentType) else cast(null(), column.type).label(column.name)
        for column in tasks.c
        if column is not tasks.c.output
    ]
    callback = subscriptions.c.endpoint_url.label("callback_url")
    return (
        _WITH_CALLBACK.with_only_columns(*columns, type_coerce(output, tasks.c.output.type).label("output"), callback)
        .where(tasks.c.id.in_(keys))
        .order_by(tasks.c.id.desc())
    )


def tasks_to_cancel(wanted: TaskFilter, limit: int) -> Select[Any]:
    """Return the query for tasks, newest first, with the columns that a cancel needs."""
    return tasks_matching(wanted, limit).with_only_columns(*(tasks.c[name] for name in _TO_CANCEL))


def count_tasks(wanted: TaskFilter) -> Select[Any]:
    """Return the query that counts the tasks of a filter, as `count`."""
    return select(func.count().label("count")).select_from(tasks).where(is_wanted(wanted))


def models_of(organization_id: int) -> Select[Any]:
    """Return the query for the models that tasks of the organization have, each once: `MOST_MODELS` at most.

    It looks for the next greater model again and again, each time with one step in the index on (organization, model).
    A DISTINCT would read every entry of it.
    """
    is_ours = tasks.c.organization_id == organization_id
    found = select(func.min(tasks.c.model).label("model")).where(is_ours).cte("found", recursive=True)
    greater = select(func.min(tasks.c.model)).where(is_ours, tasks.c.model > found.c.model).scalar_subquery()
    found = found.union_all(select(greater).where(found.c.model.is_not(None)))
    return select(found.c.model).where(found.c.model.is_not(None)).limit(MOST_MODELS)


def count_active(organization_id: int) -> Select[Any]:
    """Return the query for (model, status, count) of the tasks that have not ended."""
    return (
        select(tasks.c.model, tasks.c.status, func.count().label("count"))
        .where(_is_active(organization_id))
        .group_by(tasks.c.model, tasks.c.status)
    )


def newest_active(organization_id: int, each: int, most: int) -> Select[Any]:
    """Return the query for the tasks that have not ended, newest first: `each` of a model and `most` in all, at most.

    Columns: those that identify a task, its state and its times, not its documents, which may be large.
    """
    # The inner limit also keeps SQLite from ranking every task of the organization, in the order of another index.
    keys = select(tasks.c.id, tasks.c.model).where(_is_active(organization_id))
    active = _sorted_page(keys, _MOST_RANKED, 0).subquery()
    rank = func.row_number().over(partition_by=active.c.model, order_by=active.c.id.desc()).label("rank")
    ranked = select(active.c.id, rank).subquery()
    names = ("uid", "model", "task_type", "status", "attempt", "provider_task_id", "created_at", "started_at")
    return (
        select(*(tasks.c[name] for name in names))
        .join(ranked, ranked.c.id == tasks.c.id)
        .where(ranked.c.rank <= each)
        .order_by(tasks.c.id.desc())
        .limit(most)
    )


def owner_of(provider: str, provider_task_id: str) -> Select[Any]:
    """Return the query for (uid, organization_id, account_id) of the task that has this id at the provider now."""
    has_id = (tasks.c.provider == provider, tasks.c.provider_task_id == provider_task_id)
    return select(tasks.c.uid, tasks.c.organization_id, tasks.c.account_id).where(*has_id)


def account_of(uid: str) -> Select[Any]:
    """Return the query for the row key of the account of one task (account_id)."""
    return select(tasks.c.account_id).where(tasks.c.uid == uid)


def referenced_tasks(organization_id: int, provider: str, uids: Sequence[str]) -> Select[Any]:
    """Return the query for (uid, status, provider_task_id) of the tasks that another task's input refers to.

    Those that have ended come first: if one of them has no id at the provider, it will never get one, and waiting for
    it is useless.
    """
    may_refer = (tasks.c.organization_id == organization_id, tasks.c.provider == provider)
    return (
        select(tasks.c.uid, tasks.c.status, tasks.c.provider_task_id)
        .where(tasks.c.uid.in_(uids), *may_refer)
        .order_by(tasks.c.status.in_(TERMINAL).desc(), tasks.c.id)
    )


def tasks_of_others(organization_id: int, provider: str, provider_task_ids: Sequence[str]) -> Select[Any]:
    """Return the query for those of these ids at the provider that belong to tasks of other organizations."""
    is_named = (tasks.c.provider == provider, tasks.c.provider_task_id.in_(provider_task_ids))
    return select(tasks.c.provider_task_id).where(*is_named, tasks.c.organization_id != organization_id)


async def outcomes_of(tx: Transaction, uids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the output and the error of these tasks, by their ids."""
    rows = await tx.execute(select(tasks.c.uid, tasks.c.output, tasks.c.error).where(tasks.c.uid.in_(uids)))
    return {row.uid: dict(row._mapping) for row in rows}


async def content_of(tx: Transaction, keys: Collection[int]) -> dict[int, dict[str, Any]]:
    """Return the columns `STORED_ONCE` of these tasks, by their row keys."""
    columns = [tasks.c[name] for name in STORED_ONCE]
    rows = await tx.execute(select(tasks.c.id, *columns).where(tasks.c.id.in_(keys)))
    return {row.id: {name: row._mapping[name] for name in STORED_ONCE} for row in rows}


async def add_metadata(tx: Transaction, organization_id: int, uid: str, metadata: Values) -> None:
    """Set the metadata of a task that has none; otherwise do nothing."""
    has_none = (tasks.c.uid == uid, tasks.c.organization_id == organization_id, tasks.c.metadata.is_(None))
    changed = update(tasks).where(*has_none).values({tasks.c.metadata: metadata}).returning(tasks.c.id)
    rows = await tx.execute(changed)
    if rows and (values := searched_values(metadata)):  # the worker that lists values may have passed the task
        key = {"organization_id": organization_id, "task_id": rows[0].id}
        await tx.execute(insert(task_metadata_values), [{**key, "value": value} for value in values])


def is_wanted(wanted: TaskFilter) -> ColumnElement[bool]:
    """Return the condition that a task passes the filter."""
    names = ("status", "model", "task_type", "provider", "run_uid")
    conditions = wanted.conditions(tasks, **{name: getattr(wanted, name) for name in names})
    if wanted.models is not None:
        conditions.append(tasks.c.model.in_(wanted.models))
    return and_(*conditions, *(has_metadata(tasks.c.metadata, name, value) for name, value in wanted.metadata.items()))


def _is_active(organization_id: int) -> ColumnElement[bool]:
    open_states = [status for status in TaskStatus if status not in TERMINAL]
    return and_(tasks.c.organization_id == organization_id, tasks.c.status.in_(open_states))


def _page(query: Select[Any], limit: int, offset: int) -> Select[Any]:
    query = query.order_by(tasks.c.id.desc()).limit(limit)
    return query.offset(offset) if offset else query


def _sorted_page(query: Select[Any], limit: int, offset: int) -> Select[Any]:
    """Return a page of what the query's conditions find in an index, sorted afterwards.

    `id + 0`, because by `id` alone a planner may read the whole table from its end, hoping to find the page soon.
    """
    return query.order_by((tasks.c.id + 0).desc()).limit(limit).offset(offset)
