"""Leases, and every move of a task's `due_at` that follows from no update.

`due_at` is when a task must be acted on next. Claiming a task moves it into the future by a lease, so that the claims
of a process that died come back by themselves when their leases run out.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, update

from models import TERMINAL, Submission, TaskStatus
from models.columns import Moment
from receiver.clock import utc_now
from receiver.domain.transitions import TaskState
from receiver.storage.tables import deliveries, idempotency_keys, tasks
from receiver.storage.transaction import TaskChange, Transaction


@dataclass(frozen=True, slots=True)
class Intent:
    """One attempt of a task that is about to be sent, leased for `lease_seconds` from when this is written."""

    uid: str
    attempt: int
    lease_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Postponement:
    """When to act on a task next, and what is known of its submission by now.

    It holds only while the task is still at this attempt and its submission is what it was.
    """

    uid: str
    attempt: int
    submission_was: Submission
    submission: Submission
    poll_count: int
    due_at: datetime
    last_update_at: datetime | None = None
    """The newest update known when this was decided, if that matters: after a newer one nothing is moved."""


_KNOWN_UPDATE_AT = bindparam("known_update_at", type_=Moment)
_POSTPONE = (
    update(tasks)
    .where(
        tasks.c.uid == bindparam("task"),
        tasks.c.attempt == bindparam("at_attempt"),
        tasks.c.submission == bindparam("submission_was"),
        tasks.c.status.not_in(TERMINAL),
        _KNOWN_UPDATE_AT.is_(None) | (tasks.c.last_update_at == _KNOWN_UPDATE_AT),
    )
    .values(
        submission=bindparam("now_submission"),
        poll_count=bindparam("now_poll_count"),
        due_at=bindparam("now_due"),
        leased=False,
    )
)


async def mark_sending(tx: Transaction, intents: Sequence[Intent]) -> list[bool | Exception]:
    """Write that tasks are being sent, before their provider is called, and lease them to this process again.

    The result for a task that no longer waits to be sent is False: it was cancelled, or its lease ran out and another
    process sends it. A handler of the writer.
    """
    found = await tx.load_tasks({intent.uid for intent in intents})
    now = utc_now()
    changes: dict[str, TaskChange] = {}
    results: list[bool | Exception] = []
    for intent in intents:
        task = found.get(intent.uid)
        is_first = task is not None and task.uid not in changes and _waits(task, intent.attempt)
        if task is not None and is_first:
            changes[task.uid] = TaskChange(
                id=task.id,
                from_status=task.status,
                from_attempt=task.attempt,
                values={
                    "submission": Submission.SENDING,
                    "submitted_at": now,
                    "due_at": now + timedelta(seconds=intent.lease_seconds),
                    "leased": True,
                },
            )
        results.append(is_first)
    await tx.update_tasks(list(changes.values()))
    return results


async def postpone(tx: Transaction, items: Sequence[Postponement]) -> list[Exception | None]:
    """Move `due_at`; a postponement that no longer holds changes nothing. A handler of the writer."""
    await tx.execute(_POSTPONE, [_parameters(item) for item in items])
    return [None] * len(items)


async def poll_now(tx: Transaction, uid: str, now: datetime) -> None:
    """Make a task due now, if its provider has it and it has not ended."""
    running = (tasks.c.submission == Submission.ACCEPTED, tasks.c.due_at.is_not(None))
    await tx.execute(update(tasks).where(tasks.c.uid == uid, *running).values(due_at=now, leased=False))


async def end_leases(tx: Transaction, now: datetime) -> None:
    """End every lease in the database: only for the start of its only process."""
    for table in (tasks, deliveries):
        await tx.execute(
            update(table).where(table.c.leased, table.c.due_at.is_not(None)).values(due_at=now, leased=False)
        )
    unanswered = idempotency_keys.c.status.is_(None)
    await tx.execute(update(idempotency_keys).where(unanswered).values(lease_until=now))


async def give_back_tasks(tx: Transaction, keys: Collection[int], now: datetime) -> None:
    """End the leases of tasks that this process claimed and stops without acting on.

    Not of those that are being sent: whether the provider got them is known only when the lease has run out.
    """
    held = (tasks.c.id.in_(keys), tasks.c.leased, tasks.c.due_at.is_not(None), tasks.c.submission != Submission.SENDING)
    await tx.execute(update(tasks).where(*held).values(due_at=now, leased=False))


def _waits(task: TaskState, attempt: int) -> bool:
    return task.attempt == attempt and task.status == TaskStatus.QUEUED and task.submission == Submission.WAITING


def _parameters(item: Postponement) -> dict[str, Any]:
    return {
        "task": item.uid,
        "at_attempt": item.attempt,
        "submission_was": item.submission_was,
        "now_submission": item.submission,
        "now_poll_count": item.poll_count,
        "now_due": item.due_at,
        "known_update_at": item.last_update_at,
    }
