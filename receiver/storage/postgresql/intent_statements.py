"""What records on PostgreSQL that tasks are being sent: a statement, and the parts of it for the one statement."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from models import Submission, TaskStatus
from receiver.storage.postgresql.statement_parts import is_given
from receiver.storage.transaction import NewIntent


def waiting_query(first: int) -> str:
    """Return the query that locks the tasks of `intent_arrays` that wait to be sent, in the order of their row keys.

    The first of the parameters has the number `first`; what is done about rows that are locked is to be added.
    """
    uids, attempts, tokens, ends = (f"${number}" for number in range(first, first + 4))
    return f"""
    SELECT task.id, given.token, given.lease_until
    FROM unnest((SELECT {uids}::uuid[]), {attempts}::integer[], {tokens}::uuid[], {ends}::timestamptz[])
        AS given(uid, attempt, token, lease_until)
    JOIN task ON task.uid = given.uid AND task.attempt = given.attempt AND {is_given("task.uid", first, "uuid")}
    WHERE task.status = '{TaskStatus.QUEUED}' AND task.submission = '{Submission.WAITING}'
    AND task.cancel_requested_at IS NULL
    ORDER BY task.id FOR NO KEY UPDATE OF task"""


def mark_waiting(first: int) -> str:
    """Return the statement that marks the tasks of `waiting`, a part with the rows of `waiting_query`."""
    return f"""UPDATE task SET submission = '{Submission.SENDING}', submit_token = waiting.token,
    submitted_at = ${first + 4}, due_at = waiting.lease_until, leased = true
FROM waiting WHERE task.id = waiting.id"""


def intent_arrays(intents: Sequence[NewIntent], now: datetime) -> list[Any]:
    """Return the parameters: one list for each column of the intents, and the time."""
    return [
        [each.uid for each in intents],
        [each.attempt for each in intents],
        [each.token for each in intents],
        [each.lease_until for each in intents],
        now,
    ]


_MARK = f"""WITH waiting AS MATERIALIZED ({waiting_query(1)}
)
{mark_waiting(1)} RETURNING task.id, task.uid, task.attempt
"""
"""Marks tasks that wait to be sent. One that another session has changed is looked at again when its lock is free, and
left out if it does not wait any more."""


async def mark_sending(
    driver: asyncpg.Connection, intents: Sequence[NewIntent], now: datetime
) -> dict[tuple[str, int], int]:
    """Mark the tasks that wait to be sent at these attempts; return their row keys by id and attempt."""
    rows = await driver.fetch(_MARK, *intent_arrays(intents, now))
    return {(uid, attempt): key for key, uid, attempt in rows}
