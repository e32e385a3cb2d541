"""A report's queries about tasks: how each stands, recomputed from its events."""

from typing import Any

from sqlalchemy import CTE, Select, and_, case, func, or_, select

from models import TERMINAL, EventType
from receiver.domain.decisions import ENDING, ENDS
from receiver.domain.gaps import GapKind
from receiver.storage.report.standings import ENDED, OPEN, OVERDUE, count_standings, rows_standing
from receiver.storage.report.window import Chunk
from receiver.storage.tables import events, tasks


def count_tasks(chunk: Chunk) -> Select[Any]:
    """Return the query for (status, standing, count) of the tasks of a chunk."""
    return count_standings(_standings(chunk))


def tasks_standing(chunk: Chunk, standing: str, limit: int) -> Select[Any]:
    """Return the query for (task_id, status) of the tasks of a chunk that stand so."""
    return rows_standing(_standings(chunk), "task_id", standing, limit)


def _standings(chunk: Chunk) -> CTE:
    """Return id, uid, status and standing of each task of a chunk.

    A task has one event of its end for each time that it ended. Each end but the present one was followed by a
    correction or by a client's retry, and the event of that names it; so the numbers must agree.
    """
    is_end = events.c.type.in_(sorted(ENDS))
    is_present_end = and_(
        events.c.uid == tasks.c.ended_event, events.c.type == case(dict(ENDING), value=tasks.c.status, else_="")
    )
    is_retry = and_(events.c.type == EventType.TASK_UPDATED, tasks.c.attempt > 1)
    per_task = (
        select(
            tasks.c.id,
            tasks.c.uid,
            tasks.c.status,
            tasks.c.due_at,
            or_(tasks.c.bulk, tasks.c.run_uid.is_not(None), tasks.c.callback_id.is_not(None)).label("is_ours"),
            func.count(case((is_end, 1))).label("ends"),
            func.count(case((is_present_end, 1))).label("present_ends"),
            func.count(case((is_end, events.c.snapshot["corrects"].as_string()))).label("corrections"),
            func.count(case((is_retry, events.c.snapshot["retries"].as_string()))).label("retries"),
            func.count(case((events.c.type == EventType.TASK_CREATED, 1))).label("creations"),
        )
        .select_from(tasks.outerjoin(events, events.c.task_id == tasks.c.id))
        .where(chunk.rows_of(tasks))
        .group_by(tasks.c.id)
        .cte("per_task")
    )
    own = per_task.c
    has_ended = own.status.in_(sorted(TERMINAL))
    ends = case((has_ended, 1), else_=0) + own.corrections + own.retries
    standing = case(
        (and_(has_ended, own.present_ends == 0), GapKind.END_EVENT_MISSING),
        (own.ends != ends, GapKind.END_EVENTS_DIFFER),
        (or_(own.creations > 1, and_(own.is_ours, own.creations == 0)), GapKind.CREATED_EVENT_MISSING),
        (has_ended, ENDED),
        (own.due_at.is_(None), GapKind.TASK_NOT_DUE),
        (own.due_at < chunk.window.overdue_before, OVERDUE),
        else_=OPEN,
    )
    return select(own.id, own.uid, own.status, standing.label("standing")).cte("standing")
