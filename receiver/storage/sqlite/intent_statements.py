"""The statements on SQLite that record that tasks are being sent."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from models import Submission, TaskStatus
from receiver.storage.sqlite.values import write_document, write_moment
from receiver.storage.transaction import NewIntent

_WAITING = (
    "SELECT id, uid, attempt FROM task WHERE uid IN (SELECT value FROM json_each(?)) "
    f"AND status = '{TaskStatus.QUEUED}' AND submission = '{Submission.WAITING}' AND cancel_requested_at IS NULL"
)
_MARK = (
    f"UPDATE task SET submission = '{Submission.SENDING}', submit_token = ?, submitted_at = ?, due_at = ?, leased = 1 "
    "WHERE id = ?"
)


def mark_sending(driver: sqlite3.Connection, intents: Sequence[NewIntent], now: datetime) -> dict[tuple[str, int], int]:
    """Mark the tasks that wait to be sent at these attempts; return their row keys by id and attempt."""
    wanted = {(each.uid, each.attempt): each for each in intents}
    rows = driver.execute(_WAITING, (write_document([each.uid for each in intents]),))
    found = {(uid, attempt): key for key, uid, attempt in rows if (uid, attempt) in wanted}
    moment = write_moment(now)
    driver.executemany(
        _MARK,
        [(wanted[name].token, moment, write_moment(wanted[name].lease_until), key) for name, key in found.items()],
    )
    return found
