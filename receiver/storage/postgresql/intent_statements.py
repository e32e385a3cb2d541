"""The statement on PostgreSQL that records that tasks are being sent."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from models import Submission, TaskStatus
from receiver.storage.transaction import NewIntent

_MARK = f"""
WITH waiting AS MATERIALIZED (
    SELECT task.id, given.token, given.lease_until
    FROM unnest((SELECT $1::uuid[]), $2::integer[], $3::uuid[], $4::timestamptz[])
        AS given(uid, attempt, token, lease_until)
    JOIN task ON task.uid = given.uid AND task.attempt = given.attempt
    WHERE task.status = '{TaskStatus.QUEUED}' AND task.submission = '{Submission.WAITING}'
    AND task.cancel_requested_at IS NULL
    ORDER BY task.id FOR NO KEY UPDATE OF task
)
UPDATE task SET submission = '{Submission.SENDING}', submit_token = waiting.token, submitted_at = $5,
    due_at = waiting.lease_until, leased = true
FROM waiting WHERE task.id = waiting.id RETURNING task.id, task.uid, task.attempt
"""
"""Marks tasks that wait to be sent. Their rows are locked in the order of their keys; one that another session has
changed is looked at again when its lock is free, and left out if it does not wait any more."""


async def mark_sending(
    driver: asyncpg.Connection, intents: Sequence[NewIntent], now: datetime
) -> dict[tuple[str, int], int]:
    """Mark the tasks that wait to be sent at these attempts; return their row keys by id and attempt."""
    rows = await driver.fetch(
        _MARK,
        [each.uid for each in intents],
        [each.attempt for each in intents],
        [each.token for each in intents],
        [each.lease_until for each in intents],
        now,
    )
    return {(uid, attempt): key for key, uid, attempt in rows}
