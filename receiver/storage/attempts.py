"""Earlier attempts of tasks: kept by the change that begins the next attempt, read with their task."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import Select, insert, select, tuple_, update

from receiver.domain.task_state import TaskState
from receiver.storage.tables import task_attempts, tasks
from receiver.storage.transaction import Transaction

_PRESENT = (
    *("id", "uid", "attempt", "status", "provider_task_id", "error"),
    *("submitted_at", "started_at", "ended_at"),
)
ProviderId = tuple[str, str]
"""A provider's name, and its id for a task."""


class Ended(Struct, frozen=True, kw_only=True):
    """How a task's attempt ended; what is None here is taken from the task's row, which still has it."""

    task: TaskState
    status: str
    error: dict[str, Any] | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


async def keep_attempts(tx: Transaction, ended: Sequence[Ended]) -> None:
    """Insert rows for attempts that end, before their tasks' rows are overwritten."""
    columns = (tasks.c.id, tasks.c.error, tasks.c.submitted_at, tasks.c.started_at, tasks.c.ended_at)
    found = await tx.execute(select(*columns).where(tasks.c.id.in_([each.task.id for each in ended])))
    rows = {row.id: row for row in found}
    await tx.execute(insert(task_attempts), [_row(each, rows[each.task.id]) for each in ended])


def attempts_of(task_key: int) -> Select[Any]:
    """Return the query for the earlier attempts of a task, in their order."""
    return select(task_attempts).where(task_attempts.c.task_id == task_key).order_by(task_attempts.c.number)


def attempts_of_all(task_keys: Collection[int]) -> Select[Any]:
    """Return the query for the earlier attempts of these tasks, in the order of each."""
    return select(task_attempts).where(task_attempts.c.task_id.in_(task_keys)).order_by(task_attempts.c.number)


def present_attempts(organization_id: int, uids: Collection[str]) -> Select[Any]:
    """Return the query for what the rows of these tasks tell of their present attempts."""
    columns = (tasks.c[name] for name in _PRESENT)
    return select(*columns).where(tasks.c.organization_id == organization_id, tasks.c.uid.in_(uids))


async def attempts_at_provider(tx: Transaction, names: Collection[ProviderId]) -> dict[ProviderId, tuple[str, int]]:
    """Return the task's id and the attempt's number for those of these ids that earlier attempts had."""
    query = select(
        task_attempts.c.provider, task_attempts.c.provider_task_id, tasks.c.uid, task_attempts.c.number
    ).join(tasks, tasks.c.id == task_attempts.c.task_id)
    named = tuple_(task_attempts.c.provider, task_attempts.c.provider_task_id)
    # The second condition follows from the first; repeated, because the index is partial and has it as its condition.
    found = await tx.execute(query.where(named.in_(names), task_attempts.c.provider_task_id.is_not(None)))
    return {(row.provider, row.provider_task_id): (row.uid, row.number) for row in found}


async def name_attempt(tx: Transaction, uid: str, number: int, provider_task_id: str) -> bool:
    """Keep which task of the provider's an earlier attempt was, if that was not known; return whether it was not."""
    of_task = select(tasks.c.id).where(tasks.c.uid == uid).scalar_subquery()
    is_nameless = (task_attempts.c.number == number, task_attempts.c.provider_task_id.is_(None))
    named = await tx.execute(
        update(task_attempts)
        .where(task_attempts.c.task_id == of_task, *is_nameless)
        .values(provider_task_id=provider_task_id)
        .returning(task_attempts.c.id)
    )
    return bool(named)


def _row(ended: Ended, task: Any) -> dict[str, Any]:
    return {
        "task_id": ended.task.id,
        "number": ended.task.attempt,
        "provider": ended.task.provider,
        "provider_task_id": ended.task.provider_task_id,
        "status": ended.status,
        "error": ended.error or task.error,
        "submitted_at": task.submitted_at,
        "started_at": ended.started_at or task.started_at,
        "ended_at": ended.ended_at or task.ended_at,
    }
