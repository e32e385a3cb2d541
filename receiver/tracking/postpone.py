"""Moving `due_at` where nothing was learned of the task itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, update

from models import TERMINAL, Submission
from models.columns import Moment
from receiver.storage.tables import tasks
from receiver.storage.transaction import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Postponement:
    """When to act on a task next, and what is known of its submission by now.

    Holds only while the task is still at this attempt and its submission is what it was.
    """

    uid: str
    attempt: int
    submission_was: Submission
    submission: Submission
    poll_count: int
    due_at: datetime
    last_update_at: datetime | None = None
    """The last news that is known of, if any must be: with newer news nothing is moved."""


_HEARD_AT = bindparam("was_heard_at", type_=Moment)
_POSTPONE = (
    update(tasks)
    .where(
        tasks.c.uid == bindparam("task"),
        tasks.c.attempt == bindparam("at_attempt"),
        tasks.c.submission == bindparam("submission_was"),
        tasks.c.status.not_in(TERMINAL),
        _HEARD_AT.is_(None) | (tasks.c.last_update_at == _HEARD_AT),
    )
    .values(
        submission=bindparam("now_submission"),
        poll_count=bindparam("now_poll_count"),
        due_at=bindparam("now_due"),
        leased=False,
    )
)


async def postpone(tx: Transaction, items: Sequence[Postponement]) -> list[Exception | None]:
    """Write the postponements; one that no longer holds changes nothing."""
    await tx.execute(_POSTPONE, [_parameters(item) for item in items])
    return [None] * len(items)


def poll_now(uids: Sequence[str], now: datetime) -> Any:
    """Return the statement that makes tasks due at once, as far as the provider has them and they run."""
    running = (tasks.c.submission == Submission.ACCEPTED, tasks.c.due_at.is_not(None))
    return update(tasks).where(tasks.c.uid.in_(uids), *running).values(due_at=now, leased=False)


def _parameters(item: Postponement) -> dict[str, Any]:
    return {
        "task": item.uid,
        "at_attempt": item.attempt,
        "submission_was": item.submission_was,
        "now_submission": item.submission,
        "now_poll_count": item.poll_count,
        "now_due": item.due_at,
        "was_heard_at": item.last_update_at,
    }
