"""Leases, and every change of a task's `due_at` that does not follow from an update.

Why leases: while a process acts on a task (a call to the provider) or a delivery (a request to the subscriber), no
other process may do the same. A lock in the database cannot hold others off: the call takes seconds, and an open
transaction for each would keep connections and old row versions all that time. So a claim writes a lease into the row,
in one short transaction, and the call is made outside of any.

A task and a delivery need one column for this. `due_at` is when the row must be acted on next; claiming it moves
`due_at` to the end of the lease and sets `leased`. While the lease lasts the row is not due, so no other claim finds
it. If the process dies, the row is due again when the lease ends, and the next claim by any process takes it: there is
no list of workers, no heartbeat and no clean-up of dead claims. What keeps this correct:

- A lease is longer than anything that is done under it, so that a lease that ran out means that its holder died, or
  was frozen. All processes have the same time (`receiver.clock`), and a holder looks at its lease once more right
  before it sends something (`receiver.lease_check`).
- A holder that was only slow may come back after its lease ended and another process took the row. So the outcome of
  the work repeats in its WHERE what the holder held (the `attempt` of a delivery; attempt and submission of a task),
  and changes nothing if that is not so any more. What only moves `due_at` forward to now (`poll_now`,
  `give_back_tasks`) may hit the lease of another holder: the task is then polled once more, which does no harm.
- A process that stops in order returns its leases, so that others need not wait for their end (`give_back_tasks`,
  `receiver.storage.deliveries.give_back`). On SQLite only one process has the file, so each start ends all leases
  that the last process may have left (`end_leases`).
- A task that was being sent when its lease ran out is not sent again: the provider may have it (`Submission.SENDING`).

A process that does not learn whether its claim or its intent is on disk does not act on it (`OutcomeUnknown`) until it
knows; both are evidence of their own transaction, by the end of the lease and by the intent's token.

An idempotency key has a lease of the same kind in `lease_until` and `owner` (`receiver.storage.idempotency`).
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct, field
from sqlalchemy import and_, bindparam, case, literal, select, update

from models import TERMINAL, Submission, TaskStatus
from models.columns import Moment
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.task_state import TaskState
from receiver.storage.optimistic import may_be_optimistic, stands_alone
from receiver.storage.tables import bulk_actions, deliveries, idempotency_keys, tasks
from receiver.storage.transaction import ClaimedTasks, NewIntent, TaskClaim, Transaction


class Intent(Struct, frozen=True):
    """The intent to send one attempt of a task; its lease ends `lease_seconds` after this is written.

    Each intent has a `token` of its own. It is written with it, so that a process that did not learn whether its intent
    is on disk can tell it from that of another process.
    """

    uid: str
    attempt: int
    lease_seconds: float
    token: str = field(default_factory=new_id)


class Postponement(Struct, frozen=True, kw_only=True):
    """When to act on a task next, and the state of its submission that is known by now.

    It is applied only if the task is still at this attempt and its submission is still `submission_was`.
    """

    uid: str
    attempt: int
    submission_was: Submission
    submission: Submission
    poll_count: int
    due_at: datetime
    cancel_requested_at: datetime | None
    """The task's `cancel_requested_at` when this was decided: one that was set since makes the task due at once.
    So does a look that was asked for since."""
    missing_count: int = 0
    missing_since: datetime | None = None
    last_update_at: datetime | None = None
    """The task's `last_update_at` when this was decided: it is not applied if an update arrived since. None to apply it
    in any case."""


class LaterLook(Struct, frozen=True, kw_only=True):
    """When to look again at a task that Ringback ended by itself; `due_at` is None for never.

    `looks` is how many looks were answered. It is applied only while the task is failed, at this attempt, as it was.
    """

    uid: str
    attempt: int
    looks: int
    due_at: datetime | None
    last_update_at: datetime


class LostAnswer(Struct, frozen=True):
    """What is known of a create call whose outcome is unknown: `error` has the provider's words, if it sent any."""

    uid: str
    attempt: int
    error: dict[str, Any]


AT_ONCE = bindparam("at_once", type_=Moment)
"""The parameter of a statement that says when "at once" is: now."""
_KNOWN_UPDATE_AT = bindparam("known_update_at", type_=Moment)
_IS_RECALLED_SINCE = and_(
    tasks.c.submission != Submission.WAITING,  # the cancel of a run ends those
    tasks.c.cancel_requested_at.is_not(None),
    tasks.c.cancel_requested_at.is_distinct_from(bindparam("known_recall_at", type_=Moment)),
)
LOOK_IS_DUE = and_(tasks.c.submission == Submission.ACCEPTED, ~tasks.c.leased, tasks.c.due_at <= AT_ONCE)
"""Whether a look was asked for that has not begun (`receiver.domain.decisions.not_postponed`)."""
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
        missing_count=bindparam("now_missing_count"),
        missing_since=bindparam("now_missing_since", type_=Moment),
        exception_count=0,
        due_at=case((_IS_RECALLED_SINCE | LOOK_IS_DUE, AT_ONCE), else_=bindparam("now_due", type_=Moment)),
        leased=False,
    )
)


@stands_alone
async def claim_tasks(tx: Transaction, claims: Sequence[TaskClaim]) -> list[ClaimedTasks | Exception]:
    """Claim due tasks. A handler of the writer."""
    return [await tx.claim_tasks(claim) for claim in claims]


@may_be_optimistic
async def mark_sending(tx: Transaction, intents: Sequence[Intent]) -> list[bool | Exception]:
    """Record that tasks are being sent, before their provider is called, and renew their leases.

    The result is False for a task that does not wait to be sent any more, and may not be sent: it or its run was
    cancelled, or its lease ran out and another process sends it. A handler of the writer.
    """
    now = utc_now()
    first = {(intent.uid, intent.attempt): intent for intent in reversed(intents)}
    new = [
        NewIntent(each.uid, each.attempt, each.token, now + timedelta(seconds=each.lease_seconds))
        for each in first.values()
    ]
    marked = await tx.mark_sending(new, now)
    if marked:
        token = first[next(iter(marked))].token
        keys = list(marked.values())
        tx.leaves(lambda: select(tasks.c.id).where(tasks.c.id.in_(keys), tasks.c.submit_token == token))
    return [(each.uid, each.attempt) in marked and first[each.uid, each.attempt] is each for each in intents]


async def postpone(tx: Transaction, items: Sequence[Postponement]) -> list[Exception | None]:
    """Apply postponements; one that no longer applies changes nothing. A handler of the writer."""
    await tx.execute(_POSTPONE, [_parameters(item) for item in items])
    return [None] * len(items)


async def plan_later_looks(tx: Transaction, items: Sequence[LaterLook]) -> list[Exception | None]:
    """Write when to look again at tasks that have ended. A handler of the writer."""
    for item in sorted(items, key=lambda each: each.uid):
        is_same = (tasks.c.uid == item.uid, tasks.c.attempt == item.attempt, tasks.c.status == TaskStatus.FAILED)
        is_planned = (tasks.c.due_at.is_not(None), tasks.c.last_update_at == item.last_update_at)
        changes = {"due_at": item.due_at, "leased": False, "poll_count": item.looks, "exception_count": 0}
        await tx.execute(update(tasks).where(*is_same, *is_planned).values(changes))
    return [None] * len(items)


async def keep_lost_answers(tx: Transaction, items: Sequence[LostAnswer]) -> list[Exception | None]:
    """Keep the words of create calls whose outcome is unknown with their tasks. A handler of the writer."""
    for item in sorted(items, key=lambda each: each.uid):
        is_same = (tasks.c.uid == item.uid, tasks.c.attempt == item.attempt, tasks.c.submission == Submission.SENDING)
        changes = {"error": item.error}
        await tx.execute(update(tasks).where(*is_same, tasks.c.status.not_in(TERMINAL)).values(changes))
    return [None] * len(items)


async def count_exception(tx: Transaction, task: TaskState, due_at: datetime) -> None:
    """Count an exception on a task that was acted on, and end its lease: it is due again at `due_at`.

    It is due at once if a look was asked for since.
    """
    is_same = (tasks.c.id == task.id, tasks.c.attempt == task.attempt, tasks.c.status.not_in(TERMINAL))
    changes = {
        "exception_count": tasks.c.exception_count + 1,
        "due_at": case((LOOK_IS_DUE, AT_ONCE), else_=literal(due_at, Moment)),
        "leased": False,
    }
    await tx.execute(update(tasks).where(*is_same).values(changes), [{"at_once": utc_now()}])


async def poll_now(tx: Transaction, uids: Collection[str], now: datetime) -> None:
    """Make tasks due for a poll now, those that their provider has and that have not ended."""
    if len(uids) > 1:
        await tx.load_tasks(uids)  # which locks them in the order of all who lock several
    is_running = (tasks.c.submission == Submission.ACCEPTED, tasks.c.due_at.is_not(None))
    is_open = tasks.c.status.not_in(TERMINAL)
    await tx.execute(update(tasks).where(tasks.c.uid.in_(uids), is_open, *is_running).values(due_at=now, leased=False))


async def end_leases(tx: Transaction, now: datetime) -> None:
    """End every lease in the database. Only for the start of the one process that uses it (SQLite)."""
    for table in (tasks, deliveries, bulk_actions):
        await tx.execute(
            update(table).where(table.c.leased, table.c.due_at.is_not(None)).values(due_at=now, leased=False)
        )
    unanswered = idempotency_keys.c.status.is_(None)
    await tx.execute(update(idempotency_keys).where(unanswered).values(lease_until=now))


async def give_back_tasks(tx: Transaction, keys: Collection[int], now: datetime) -> None:
    """End the leases of tasks that this process claimed and will not act on, because it stops.

    Leases of tasks that are being sent stay: whether the provider has them is only known when the lease has run out.
    """
    held = (tasks.c.id.in_(keys), tasks.c.leased, tasks.c.due_at.is_not(None), tasks.c.submission != Submission.SENDING)
    await tx.execute(update(tasks).where(*held).values(due_at=now, leased=False))


def _parameters(item: Postponement) -> dict[str, Any]:
    return {
        "task": item.uid,
        "at_attempt": item.attempt,
        "submission_was": item.submission_was,
        "now_submission": item.submission,
        "now_poll_count": item.poll_count,
        "now_missing_count": item.missing_count,
        "now_missing_since": item.missing_since,
        "now_due": item.due_at,
        "at_once": utc_now(),
        "known_recall_at": item.cancel_requested_at,
        "known_update_at": item.last_update_at,
    }
