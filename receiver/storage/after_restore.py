"""What has to be done with a database that was restored, before it is served again.

A backup knows nothing of what happened after it, at the provider and at subscribers. Served as it is, it would buy work
twice and let streams skip events. So, in one transaction:

- A task whose create call had no answer, or that waited to be sent, may have been sent since. It is searched for
  (`receiver.tracking.search`) as one whose call got no answer, at any time until now, and is never sent again: what is
  not found fails with `submission_unknown`, which a person may retry.
- A task under way begins no further attempt by itself: one may have begun since. It is polled, and its failure is
  final, until a person retries it.
- A bulk action that runs is cancelled: it would retry tasks by itself too, which it may have done since.
- The sequence numbers of events go on far above all that were given since: a stream that resumes at one of them misses
  nothing.
"""

from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import Connection, and_, func, select, text, update

from models import RUN_TERMINAL, TERMINAL, BulkActionStatus, Submission
from receiver.domain.create_calls import sent_since_backup
from receiver.storage.installation import LAST_RESTORE, write_fact
from receiver.storage.tables import bulk_actions, events, runs, tasks

SEQUENCE_GAP = 1_000_000_000
"""By how much the numbers of events go up: more than any service writes between a backup and its restore, and few
enough that a million restores stay below the greatest integer of JavaScript."""


class AfterRestore(Struct, frozen=True):
    """What was found in a restored database, and done with it."""

    newest_event_at: datetime | None
    """When the newest event in it was written: about the time of the backup. None if it has no event."""
    searched: int
    """Tasks that are searched for at the provider."""
    polled: int
    """Tasks under way that are polled."""
    runs: int
    """Runs under way: their next steps are created again, if they were since the backup."""
    next_event: int
    """The number of the next event is at least this."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields for JSON, with the time as text."""
        moment = self.newest_event_at
        return {**asdict(self), "newest_event_at": None if moment is None else moment.isoformat()}


def after_restore(connection: Connection, now: datetime) -> AfterRestore:
    """Do all of that in the connection's transaction. Nothing may be served from the database meanwhile."""
    newest_at = connection.execute(
        select(events.c.created_at).order_by(events.c.id.desc()).limit(1)
    ).scalar_one_or_none()
    polled = _stop_further_attempts(connection)
    searched = _search_for_unanswered(connection, newest_at or now, now)
    _cancel_bulk_actions(connection, now)
    under_way = connection.execute(select(func.count()).where(runs.c.status.not_in(RUN_TERMINAL))).scalar_one()
    next_event = _raise_sequence(connection)
    write_fact(connection, LAST_RESTORE, {"at": now.isoformat()})
    return AfterRestore(newest_at, searched, polled, under_way, next_event)


def _search_for_unanswered(connection: Connection, earliest: datetime, now: datetime) -> int:
    is_unanswered = and_(tasks.c.status.not_in(TERMINAL), tasks.c.provider_task_id.is_(None))
    # One that was being sent at the time of the backup may have been sent at that time, or again later.
    is_sent = tasks.c.submission.in_((Submission.SENDING, Submission.UNKNOWN))
    first = func.min(func.coalesce(tasks.c.submitted_at, tasks.c.created_at))
    first_sent = connection.execute(select(first).where(is_unanswered, is_sent)).scalar_one_or_none()
    changes = {
        "submission": Submission.UNKNOWN,
        "submitted_at": min(earliest, first_sent or earliest),
        "error": sent_since_backup(now),
        "due_at": now,
        "leased": False,
        "poll_count": 0,
        "missing_count": 0,
        "missing_since": None,
        "exception_count": 0,
    }
    return connection.execute(update(tasks).where(is_unanswered).values(changes)).rowcount


def _stop_further_attempts(connection: Connection) -> int:
    is_open = tasks.c.status.not_in(TERMINAL)
    changed = connection.execute(update(tasks).where(is_open).values(max_attempts=tasks.c.attempt))
    unsent = select(func.count()).where(is_open, tasks.c.provider_task_id.is_(None))
    return changed.rowcount - int(connection.execute(unsent).scalar_one())


def _cancel_bulk_actions(connection: Connection, now: datetime) -> None:
    changes = {"status": BulkActionStatus.CANCELLED, "ended_at": now, "due_at": None, "leased": False, "batch": None}
    is_running = bulk_actions.c.status == BulkActionStatus.RUNNING
    connection.execute(update(bulk_actions).where(is_running).values(changes))


def _raise_sequence(connection: Connection) -> int:
    """Let the numbers of events go on above `SEQUENCE_GAP` more than the last; return that number."""
    newest = connection.execute(select(func.max(events.c.id))).scalar_one() or 0
    if connection.dialect.name == "sqlite":
        given = connection.execute(text("SELECT seq FROM sqlite_sequence WHERE name = 'event'")).scalar_one_or_none()
        last = max(newest, given or 0) + SEQUENCE_GAP
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = 'event'"))
        connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES ('event', :last)"), {"last": last})
        return last + 1
    sequence = "pg_get_serial_sequence('event', 'id')::regclass"
    given = connection.execute(text(f"SELECT nextval({sequence})")).scalar_one()
    last = int(max(newest, given)) + SEQUENCE_GAP
    connection.execute(text(f"SELECT setval({sequence}, :last)"), {"last": last})
    return last + 1
