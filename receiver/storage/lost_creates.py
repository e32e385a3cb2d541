"""Tasks whose create call got no answer: which there are, and their claim for one look at the provider's list."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Select, and_, func, select, union, update

from models import TERMINAL, ReceiptReason, Submission, TaskStatus
from receiver.domain.task_state import TaskState
from receiver.storage.attempts import name_attempt
from receiver.storage.receipts import insert_receipts, new_receipt, receipt_owner
from receiver.storage.tables import task_attempts, tasks
from receiver.storage.transaction import Transaction

_SUBMITTED_AT = func.coalesce(tasks.c.submitted_at, tasks.c.created_at)
_HAS_NO_ANSWER = and_(
    tasks.c.submission.in_((Submission.SENDING, Submission.UNKNOWN)), tasks.c.provider_task_id.is_(None)
)
_IS_OPEN = and_(tasks.c.due_at.is_not(None), tasks.c.submission != Submission.WAITING, _HAS_NO_ANSWER)
"""What is due, or leased, is in a small index; also tasks that Ringback ended, while they are looked at again."""
_COLUMNS = (
    tasks.c.uid,
    tasks.c.organization_id,
    tasks.c.provider,
    tasks.c.account_id,
    tasks.c.attempt,
    tasks.c.status,
    tasks.c.submission,
    tasks.c.task_type,
    tasks.c.error,
    tasks.c.trace_context,
    _SUBMITTED_AT.label("submitted_at"),
)


def _is_of(provider: str, account_id: int | None) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions that a task is in an account; None: in that of the environment."""
    return tasks.c.provider == provider, tasks.c.account_id.is_not_distinct_from(account_id)


class SubmittedBetween(Struct, frozen=True):
    """The tasks of one model in one account whose newest create call began in this time, both ends included."""

    provider: str
    account_id: int | None
    model: str
    first: datetime
    last: datetime

    def condition(self) -> ColumnElement[bool]:
        """Return the condition that a task is one of them, and that its create call has no answer yet."""
        is_named = (*_is_of(self.provider, self.account_id), tasks.c.model == self.model)
        return and_(_IS_OPEN, *is_named, self.first <= _SUBMITTED_AT, self.last >= _SUBMITTED_AT)


def lost_creates(uids: Collection[str]) -> Select[Any]:
    """Return the query for those of these tasks whose create call has no answer, without their inputs."""
    return select(*_COLUMNS).where(tasks.c.uid.in_(uids), _HAS_NO_ANSWER).order_by(_SUBMITTED_AT)


def open_create(provider: str, account_id: int | None) -> Select[Any]:
    """Return the query for the uid of one task in an account whose create call has no answer yet."""
    return select(tasks.c.uid).where(_IS_OPEN, *_is_of(provider, account_id)).limit(1)


def creates_without_answer(between: SubmittedBetween, limit: int) -> Select[Any]:
    """Return the query for the tasks of this time whose create call has no answer, as `lost_creates` has them."""
    return select(*_COLUMNS).where(between.condition()).order_by(_SUBMITTED_AT).limit(limit)


def inputs_of(uids: Collection[str]) -> Select[Any]:
    """Return the query for (uid, organization_id, provider, input) of these tasks."""
    return select(tasks.c.uid, tasks.c.organization_id, tasks.c.provider, tasks.c.input).where(tasks.c.uid.in_(uids))


def assigned_provider_ids(provider: str, provider_task_ids: Collection[str]) -> Any:
    """Return the query for those of these ids of the provider's that a task has already, or an earlier attempt."""
    found = [
        select(table.c.provider_task_id).where(
            table.c.provider == provider, table.c.provider_task_id.in_(provider_task_ids)
        )
        for table in (tasks, task_attempts)
    ]
    return union(*found)


def last_change(uid: str) -> Select[Any]:
    """Return the query for (updated_at, last_update_at) of one task: when it last changed, and was last heard of."""
    return select(tasks.c.updated_at, tasks.c.last_update_at).where(tasks.c.uid == uid)


async def claim_lost_creates(
    tx: Transaction, between: SubmittedBetween, now: datetime, lease_until: datetime, limit: int
) -> dict[str, TaskState]:
    """Claim those of these tasks that are due, so that one look at the provider's list serves all; return them."""
    is_due = and_(between.condition(), tasks.c.due_at <= now)
    query = select(tasks.c.uid).where(is_due).order_by(tasks.c.id).limit(limit)
    found = await tx.execute(query.with_for_update(skip_locked=True, key_share=True))
    uids = [row.uid for row in found]
    if not uids:
        return {}
    states = await tx.load_tasks(uids)
    await tx.execute(update(tasks).where(tasks.c.uid.in_(uids)).values(due_at=lease_until, leased=True))
    return states


async def name_earlier_attempt(
    tx: Transaction, provider: str, uid: str, number: int, provider_task_id: str, body: str, now: datetime
) -> bool:
    """Write down which task of the provider's an earlier attempt was, with a receipt, if that was not known.

    Return whether it was not. The provider's task was created, and is paid for, although the attempt had been ended.
    """
    if not await name_attempt(tx, uid, number, provider_task_id):
        return False
    message = (
        f"attempt {number} was ended and followed by another one, but the provider had made it: its task there is "
        f"{provider_task_id}, and it is paid for"
    )
    receipt = new_receipt(
        organization_id=await receipt_owner(tx, uid),
        provider=provider,
        task_uid=uid,
        provider_task_id=provider_task_id,
        reason=ReceiptReason.SUPERSEDED,
        message=message,
        body=body,
        now=now,
    )
    await insert_receipts(tx, [receipt])
    return True


def is_ended(row: Mapping[str, Any]) -> bool:
    """Return whether a task of these queries has ended: by Ringback's own decision, for it is still looked for."""
    return TaskStatus(row["status"]) in TERMINAL
