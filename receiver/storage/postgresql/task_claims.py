"""The statement that claims due tasks of both kinds: those to be polled, and those to be sent.

It is run in a transaction with others, or alone, as a transaction of its own (`optimistic`). No two parts of it lock or
change the same row: a task waits to be sent or it was sent, in the one snapshot that all parts read.

`receiver.storage.postgresql.transaction` says why claims do not wait for locks, and why each part is MATERIALIZED.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import asyncpg

from models import Submission
from receiver.domain.task_state import STATE_COLUMNS
from receiver.storage.large_rows import SMALL_BYTES
from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.postgresql.one_statement import MARK
from receiver.storage.postgresql.statement_parts import state_of
from receiver.storage.transaction import ClaimedTasks, DueTask, TaskClaim, TaskContent

_STATE = ", ".join(STATE_COLUMNS)

_SENT = f"due_at IS NOT NULL AND submission <> '{Submission.WAITING}'"
_POLLS = f"""ahead(id) AS (
    SELECT (SELECT min(organization_id) FROM task WHERE {_SENT} AND organization_id > $4::bigint)
    UNION ALL
    SELECT (SELECT min(organization_id) FROM task WHERE {_SENT} AND organization_id > ahead.id)
    FROM ahead WHERE ahead.id IS NOT NULL
), behind(id) AS (
    SELECT (SELECT min(organization_id) FROM task WHERE {_SENT} AND organization_id <= $4::bigint)
    UNION ALL
    SELECT (
        SELECT min(organization_id) FROM task
        WHERE {_SENT} AND organization_id > behind.id AND organization_id <= $4::bigint
    ) FROM behind WHERE behind.id IS NOT NULL
), owner AS MATERIALIZED (
    SELECT id FROM (SELECT id FROM ahead UNION ALL SELECT id FROM behind) AS each
    WHERE EXISTS (SELECT 1 FROM task WHERE {_SENT} AND organization_id = each.id AND due_at <= $1) LIMIT $3
), due_poll AS MATERIALIZED (
    SELECT waiting.*, few.number AS few
    FROM (SELECT $3::bigint / GREATEST(1, count(*)) AS number FROM owner) AS few CROSS JOIN owner CROSS JOIN LATERAL (
        SELECT {_STATE}, submitted_at FROM task
        WHERE {_SENT} AND organization_id = owner.id AND due_at <= $1
        ORDER BY due_at LIMIT few.number FOR NO KEY UPDATE SKIP LOCKED
    ) AS waiting
), poll AS MATERIALIZED (
    SELECT * FROM due_poll LIMIT $3
), claimed_poll AS (
    UPDATE task SET due_at = $2, leased = true FROM poll WHERE task.id = poll.id RETURNING poll.*
)"""
"""Claims due tasks that were sent, as many of each organization, and at most `$3` in all.

`ahead` and `behind` list the organizations, from the first one behind `$4`, by jumping from one to the next in
`ix_task_due`: one with a million tasks is one step. `owner` are the first `$3` of them that have a due task; `due_poll`
locks the oldest ones of each. `poll` has all of them: its LIMIT tells the planner how few rows the UPDATE changes.
"""

_UNSENT = f"due_at IS NOT NULL AND submission = '{Submission.WAITING}'"
_CONTENT = f"""task.stored_bytes <= {SMALL_BYTES} AS is_small, task.updated_at,
    CASE WHEN task.stored_bytes <= {SMALL_BYTES} THEN task.input::text END AS input,
    CASE WHEN task.stored_bytes <= {SMALL_BYTES} THEN task.config::text END AS config"""


def _sends(first: int) -> str:
    """Return the parts that claim due tasks which wait to be sent, in the order in which their queues take turns.

    The parameters from `first` on are the most tasks, and the queue that was served last.

    `queue` lists the queues, by jumping from one to the next in `ix_task_unsent` (a loose index scan, which PostgreSQL
    does not do by itself), once for each value of `bulk`: a long queue is one step, and costs the others nothing.
    `due_send` locks the first due rows of each queue, as many as are claimed in all, skipping those that another
    process has locked. `turns` numbers them; `turn` 1 is the oldest of its queue. `send` sorts by `turn` first, which
    takes one of each queue before a second of any; the comparison with the last queue puts the queues up to that one
    behind the others, so that the next claim continues where the last one stopped. Rows that were locked and not picked
    are free again when the transaction ends.
    """
    most, organization, bulk = (f"${number}" for number in range(first, first + 3))
    return f"""queue(bulk, organization_id) AS (
    SELECT kind.bulk, (
        SELECT organization_id FROM task WHERE {_UNSENT} AND task.bulk = kind.bulk ORDER BY organization_id LIMIT 1
    ) FROM (VALUES (false), (true)) AS kind(bulk)
    UNION ALL
    SELECT queue.bulk, (
        SELECT organization_id FROM task
        WHERE {_UNSENT} AND task.bulk = queue.bulk AND task.organization_id > queue.organization_id
        ORDER BY organization_id LIMIT 1
    ) FROM queue WHERE queue.organization_id IS NOT NULL
), due_send AS MATERIALIZED (
    SELECT waiting.* FROM queue CROSS JOIN LATERAL (
        SELECT {_STATE}, submitted_at, bulk FROM task
        WHERE {_UNSENT} AND task.bulk = queue.bulk AND task.organization_id = queue.organization_id AND due_at <= $1
        ORDER BY due_at, id LIMIT {most} FOR NO KEY UPDATE SKIP LOCKED
    ) AS waiting
), turns AS (
    SELECT *, row_number() OVER (PARTITION BY organization_id, bulk ORDER BY due_at, id) AS turn FROM due_send
), send AS MATERIALIZED (
    SELECT *, row_number() OVER (
        ORDER BY turn, (organization_id, bulk) <= ({organization}::bigint, {bulk}::boolean), organization_id, bulk
    ) AS position FROM turns ORDER BY position LIMIT {most}
), claimed_send AS (
    UPDATE task SET due_at = $2, leased = true FROM send WHERE task.id = send.id RETURNING send.*, {_CONTENT}
)"""


_OF_POLLS = f"""SELECT {_STATE}, submitted_at, few, NULL::boolean AS bulk, NULL::bigint AS position,
    NULL::boolean AS is_small, NULL::timestamptz AS updated_at, NULL::text AS input, NULL::text AS config
FROM claimed_poll"""
_OF_SENDS = f"""SELECT {_STATE}, submitted_at, NULL::bigint AS few, bulk, position, is_small, updated_at, input,
    config FROM claimed_send"""

_LEASED_UNTIL = f"""SELECT {_STATE}, submitted_at,
    CASE WHEN submission = '{Submission.WAITING}' THEN bulk END AS bulk FROM task
WHERE due_at = $1 AND leased ORDER BY id"""
"""The end of a lease is a time to the microsecond: no other process claims a row until the same one."""


class TaskClaiming:
    """One claim: its statement, and what the answer says; `claimed` is filled with that."""

    def __init__(self, claim: TaskClaim) -> None:
        self.claimed = ClaimedTasks()
        self._claim = claim

    def statement(self) -> tuple[Any, ...]:
        """Return the statement and its parameters."""
        claim = self._claim
        arguments: list[Any] = [claim.now, claim.lease_until]
        if claim.polls:
            arguments += [claim.polls, claim.polled_after]
        if claim.unsent:
            arguments += [claim.unsent, *claim.sent_after]
        return text_of(polls=claim.polls > 0, unsent=claim.unsent > 0), *arguments

    def take(self, rows: Sequence[asyncpg.Record]) -> bool:
        """Take the tasks that the statement returned, which may be none."""
        after = self._claim.polled_after
        polls = [row for row in rows if row["bulk"] is None]
        polls.sort(key=lambda row: (row["organization_id"] <= after, row["organization_id"], row["due_at"]))
        sends = sorted((row for row in rows if row["bulk"] is not None), key=lambda row: row["position"])
        claimed = self.claimed
        claimed.tasks += [DueTask(state_of(row), row["submitted_at"]) for row in polls]
        claimed.tasks += [DueTask(state_of(row), row["submitted_at"], _queue(row), _content(row)) for row in sends]
        claimed.may_be_more_unsent = len(sends) == self._claim.unsent
        if polls:
            of_each = Counter(row["organization_id"] for row in polls)
            claimed.may_be_more_polls = max(of_each.values()) >= polls[0]["few"]
        else:
            claimed.may_be_more_polls = self._claim.polls == 0
        return True

    async def find(self, connection: CoreConnection) -> bool | None:
        """Take the tasks that the statement has claimed, if its answer is missing; None if it may have claimed none."""
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None  # noqa: S101 - the connection is open
        rows = await driver.fetch(_LEASED_UNTIL, self._claim.lease_until)
        self.claimed.tasks += [
            DueTask(state_of(row), row["submitted_at"], None if row["bulk"] is None else _queue(row)) for row in rows
        ]
        return True if rows else None


@cache
def text_of(*, polls: bool, unsent: bool) -> str:
    """Return the statement that claims tasks of these kinds, at least one of them."""
    parts = ([_POLLS] if polls else []) + ([_sends(5 if polls else 3)] if unsent else [])
    answers = ([_OF_POLLS] if polls else []) + ([_OF_SENDS] if unsent else [])
    return f"{MARK} WITH RECURSIVE {', '.join(parts)}\n{' UNION ALL '.join(answers)}"


def _queue(row: asyncpg.Record) -> tuple[int, bool]:
    return row["organization_id"], row["bulk"]


def _content(row: asyncpg.Record) -> TaskContent | None:
    return TaskContent(row["updated_at"], row["input"], row["config"]) if row["is_small"] else None
