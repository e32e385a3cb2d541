"""Bulk actions: their rows, and the tasks that they act on.

A batch of tasks is written into the row, with the lease of the process that acts on it, before any of them is acted on;
what became of them is written together with the end of that lease. So after a crash the next process finds which tasks
may have been acted on, and how far each of them was.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct, field
from sqlalchemy import ColumnElement, Select, and_, case, func, insert, not_, select, update

from models import TERMINAL, BulkActionKind, BulkActionStatus, Submission, TaskStatus
from receiver.storage.bounded_count import count_up_to
from receiver.storage.tables import bulk_actions, tasks
from receiver.storage.tasks import TaskFilter, is_wanted
from receiver.storage.transaction import Transaction, Values

Planned = dict[str, Any]
"""A task of a batch: `task` is its id, `attempt` its attempt when the batch was planned, `tries` how often it was put
off since."""
_TO_ACT_ON = (
    *(
        "uid",
        "organization_id",
        "provider",
        "account_id",
        "model",
        "task_type",
        "provider_task_id",
        "handle",
        "status",
        "attempt",
    ),
    *("trace_context", "submission", "due_at"),
)


class BatchClaim(Struct, frozen=True, kw_only=True):
    """A bulk action of this process until `lease_until`: it acts on `batch`, and `cursor` is where that ends."""

    action_id: int
    cursor_was: int
    cursor: int
    batch: Sequence[Planned]
    lease_until: datetime


class BatchOutcome(Struct, frozen=True, kw_only=True):
    """What became of a batch: how many tasks were acted on, how many refused by code, and which are left for later."""

    done: int
    failed: Mapping[str, int] = field(default_factory=dict)
    left: Sequence[Planned] = ()
    due_at: datetime
    is_last: bool


def actions_of(organization_id: int, limit: int, before: int | None) -> Select[Any]:
    """Return the query for a page of an organization's bulk actions, newest first."""
    query = select(bulk_actions).where(bulk_actions.c.organization_id == organization_id)
    query = query.order_by(bulk_actions.c.id.desc()).limit(limit)
    return query if before is None else query.where(bulk_actions.c.id < before)


def action_by_id(organization_id: int, uid: str) -> Select[Any]:
    """Return the query for one of an organization's bulk actions."""
    return select(bulk_actions).where(bulk_actions.c.organization_id == organization_id, bulk_actions.c.uid == uid)


def running_actions() -> Select[Any]:
    """Return the query for the bulk actions that run, those that were left alone the longest first."""
    is_running = bulk_actions.c.status == BulkActionStatus.RUNNING
    return select(bulk_actions).where(is_running).order_by(bulk_actions.c.due_at, bulk_actions.c.id)


def count_running_actions(organization_id: int, most: int) -> Select[Any]:
    """Return the query that counts the running bulk actions of an organization, up to `most`."""
    is_ours = bulk_actions.c.organization_id == organization_id
    return count_up_to(most, bulk_actions.c.id, and_(is_ours, bulk_actions.c.status == BulkActionStatus.RUNNING))


def count_matching(kind: str, wanted: TaskFilter, now: datetime) -> Select[Any]:
    """Return the query for `count`, how many tasks match and may be acted on, and `newest`, the greatest row key."""
    counted: tuple[Any, ...] = (func.count().label("count"), func.max(tasks.c.id).label("newest"))
    return select(*counted).select_from(tasks).where(is_wanted(wanted), _may_be_acted_on(kind, now))


def next_to_act_on(action: Values, wanted: TaskFilter, limit: int) -> Select[Any]:
    """Return the query for (id, uid, attempt) of the next tasks that match, in the order of their row keys."""
    is_next = and_(tasks.c.id > action["cursor"], tasks.c.id <= action["newest"])
    may_be = _may_be_acted_on(action["kind"], action["created_at"])
    found = select(tasks.c.id, tasks.c.uid, tasks.c.attempt).where(is_wanted(wanted), may_be, is_next)
    return found.order_by(tasks.c.id).limit(limit)


def tasks_to_act_on(organization_id: int, uids: Collection[str]) -> Select[Any]:
    """Return the query for these tasks, with the columns that a cancel or a retry needs."""
    columns = [tasks.c[name] for name in _TO_ACT_ON]
    return select(*columns).where(tasks.c.organization_id == organization_id, tasks.c.uid.in_(uids))


async def insert_action(tx: Transaction, values: Values) -> int:
    """Insert one bulk action; return its row key."""
    tx.leaves(lambda: select(bulk_actions.c.id).where(bulk_actions.c.uid == values["uid"]), is_lasting=True)
    return int((await tx.execute(insert(bulk_actions).values(**values).returning(bulk_actions.c.id)))[0][0])


async def claim_action(tx: Transaction, claim: BatchClaim, now: datetime) -> bool:
    """Write the batch that is acted on now, and the lease; return False if another process has claimed the action."""
    table = bulk_actions.c
    is_free = and_(table.id == claim.action_id, table.status == BulkActionStatus.RUNNING, table.due_at <= now)
    values = {"batch": list(claim.batch), "cursor": claim.cursor, "due_at": claim.lease_until, "leased": True}
    claimed = update(bulk_actions).where(is_free, table.cursor == claim.cursor_was).values(**values)
    return bool(await tx.execute(claimed.returning(table.id)))


async def settle_batch(tx: Transaction, claim: BatchClaim, outcome: BatchOutcome, now: datetime) -> bool:
    """Write what became of a batch, and end the lease; return False if the lease was not this process's any more.

    The numbers of one that was cancelled meanwhile are written too: its tasks were acted on.
    """
    table = bulk_actions.c
    is_ours = and_(table.id == claim.action_id, table.leased, table.due_at == claim.lease_until)
    rows = await tx.execute(select(bulk_actions).where(is_ours).with_for_update())
    if not rows:
        return False
    row = rows[0]
    failed = dict(row.failed or {})
    for code, count in outcome.failed.items():
        failed[code] = failed.get(code, 0) + count
    values: dict[str, Any] = {"done": row.done + outcome.done, "failed": failed or None, "leased": False}
    values |= {"batch": list(outcome.left) or None, "due_at": outcome.due_at}
    if row.status != BulkActionStatus.RUNNING:
        values |= {"batch": None, "due_at": None}
    elif outcome.is_last:
        values |= {"status": BulkActionStatus.DONE, "ended_at": now, "due_at": None}
    await tx.execute(update(bulk_actions).where(table.id == claim.action_id).values(**values))
    return True


async def give_back_action(tx: Transaction, claim: BatchClaim, now: datetime) -> None:
    """End the lease of a claim that this process does not go on with; its batch stays, for the next claim."""
    table = bulk_actions.c
    is_ours = and_(table.id == claim.action_id, table.leased, table.due_at == claim.lease_until)
    await tx.execute(update(bulk_actions).where(is_ours).values(due_at=now, leased=False))


async def cancel_action(tx: Transaction, action_id: int, now: datetime) -> bool:
    """End a running bulk action; return False if it has ended. The batch that is under way is finished."""
    table = bulk_actions.c
    is_running = and_(table.id == action_id, table.status == BulkActionStatus.RUNNING)
    # A lease stays: the outcome of the batch is written by it.
    values = {"status": BulkActionStatus.CANCELLED, "ended_at": now, "due_at": case((table.leased, table.due_at))}
    return bool(await tx.execute(update(bulk_actions).where(is_running).values(values).returning(table.id)))


def _may_be_acted_on(kind: str, asked_at: datetime) -> ColumnElement[bool]:
    """Return the condition that the rules let a task be acted on at all; its provider may still refuse.

    A task that ended after the request is not retried: it was not among those that were counted. One is refreshed
    that the provider has and that has not ended.
    """
    if kind == BulkActionKind.REFRESH:
        return and_(tasks.c.submission == Submission.ACCEPTED, _is_open(), tasks.c.due_at.is_not(None))
    if kind == BulkActionKind.RETRY:
        is_over = and_(tasks.c.status.in_((TaskStatus.FAILED, TaskStatus.CANCELLED)), tasks.c.updated_at <= asked_at)
        return and_(is_over, tasks.c.run_uid.is_(None))  # a step is retried with its run
    is_lost = and_(tasks.c.submission == Submission.UNKNOWN, tasks.c.provider_task_id.is_(None))
    return and_(_is_open(), not_(is_lost))


def _is_open() -> ColumnElement[bool]:
    return tasks.c.status.in_([each for each in TaskStatus if each not in TERMINAL])
