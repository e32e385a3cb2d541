"""Recalls: that the provider of a step's task is to be asked to cancel it, because its run was cancelled.

A recall is a column of the task, `cancel_requested_at`, and the task is due for it like for a poll. It is set and
cleared by `receiver.domain.transitions` (`recall`, `resume`) with the task's other columns; here it is given up.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import bindparam, case, update

from models import TERMINAL
from models.columns import Moment
from receiver.clock import utc_now
from receiver.storage.leases import AT_ONCE, LOOK_IS_DUE
from receiver.storage.tables import tasks
from receiver.storage.transaction import Transaction


class RefusedRecall(Struct, frozen=True):
    """A recall that the provider refused; the task is polled at `due_at`, or at once if that was asked for since.

    It stands if it was requested again since.
    """

    uid: str
    attempt: int
    requested_at: datetime
    due_at: datetime


_GIVE_UP = (
    update(tasks)
    .where(
        tasks.c.uid == bindparam("task"),
        tasks.c.attempt == bindparam("at_attempt"),
        tasks.c.cancel_requested_at == bindparam("requested_at", type_=Moment),
        tasks.c.status.not_in(TERMINAL),
    )
    .values(
        cancel_requested_at=None,
        due_at=case((LOOK_IS_DUE, AT_ONCE), else_=bindparam("now_due", type_=Moment)),
        leased=False,
    )
)


async def give_up_recalls(tx: Transaction, items: Sequence[RefusedRecall]) -> list[Exception | None]:
    """Give up recalls: their tasks run to their end. A handler of the writer."""
    await tx.execute(_GIVE_UP, [_parameters(item) for item in items])
    return [None] * len(items)


def _parameters(item: RefusedRecall) -> dict[str, Any]:
    return {
        "task": item.uid,
        "at_attempt": item.attempt,
        "requested_at": item.requested_at,
        "now_due": item.due_at,
        "at_once": utc_now(),
    }
