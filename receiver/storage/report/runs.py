"""A report's queries about runs: how each stands, recomputed from its steps, their tasks and its events."""

from typing import Any

from sqlalchemy import CTE, ScalarSelect, Select, and_, case, func, or_, select

from models import RUN_TERMINAL, STEP_TERMINAL, EventType, RunStatus
from receiver.domain.advance import ENDING, STEP_OF, UNDER_WAY
from receiver.domain.gaps import GapKind
from receiver.storage.report.standings import ENDED, OPEN, count_standings, rows_standing
from receiver.storage.report.window import Chunk
from receiver.storage.tables import events, run_steps, runs, tasks


def count_runs(chunk: Chunk) -> Select[Any]:
    """Return the query for (status, standing, count) of the runs of a chunk."""
    return count_standings(_standings(chunk))


def runs_standing(chunk: Chunk, standing: str, limit: int) -> Select[Any]:
    """Return the query for (run_id, status) of the runs of a chunk that stand so."""
    return rows_standing(_standings(chunk), "run_id", standing, limit)


def _standings(chunk: Chunk) -> CTE:
    """Return id, uid, status and standing of each run of a chunk.

    The steps of a run and their tasks change in one transaction, and so does the run. A run that was cancelled keeps
    steps that are under way; the steps of one that is open are pending, under way or ended, and one is under way.
    """
    # A run that ended under a version before `ended_event` has none; then its type alone tells the event.
    is_present_end = or_(runs.c.ended_event.is_(None), events.c.uid == runs.c.ended_event)
    ended_as = events.c.type == case(dict(ENDING), value=runs.c.status, else_="")
    is_open = run_steps.c.status.not_in(sorted(STEP_TERMINAL))
    per_run = (
        select(
            runs.c.id,
            runs.c.uid,
            runs.c.status,
            _count_events(events.c.type == EventType.RUN_CREATED).label("creations"),
            _count_events(and_(is_present_end, ended_as)).label("present_ends"),
            _count_steps(run_steps.c.status.in_(sorted(UNDER_WAY))).label("under_way"),
            _count_steps(is_open).label("open_steps"),
            _count_differing_steps().label("differing_steps"),
        )
        .where(chunk.rows_of(runs))
        .cte("per_run")
    )
    own = per_run.c
    has_ended = own.status.in_(sorted(RUN_TERMINAL))
    standing = case(
        (own.creations != 1, GapKind.RUN_CREATED_EVENT_MISSING),
        (and_(has_ended, own.present_ends == 0), GapKind.RUN_END_EVENT_MISSING),
        (and_(has_ended, own.status != RunStatus.CANCELLED, own.open_steps > 0), GapKind.RUN_STEP_OPEN),
        (own.differing_steps > 0, GapKind.RUN_STEP_DIFFERS),
        (has_ended, ENDED),
        (own.under_way == 0, GapKind.RUN_STANDS_STILL),
        else_=OPEN,
    )
    return select(own.id, own.uid, own.status, standing.label("standing")).cte("standing")


def _count_events(condition: Any) -> ScalarSelect[Any]:
    """Return how many events of the run itself, not of its tasks, there are under a condition."""
    of_run = and_(events.c.run_uid == runs.c.uid, events.c.task_id.is_(None))
    return select(func.count()).select_from(events).where(of_run, condition).correlate(runs).scalar_subquery()


def _count_steps(condition: Any) -> ScalarSelect[Any]:
    of_run = run_steps.c.run_id == runs.c.id
    return select(func.count()).select_from(run_steps).where(of_run, condition).correlate(runs).scalar_subquery()


def _count_differing_steps() -> ScalarSelect[Any]:
    is_of_step = and_(tasks.c.run_uid == runs.c.uid, tasks.c.step == run_steps.c.name)
    is_same = run_steps.c.status == case(dict(STEP_OF), value=tasks.c.status, else_="")
    return (
        select(func.count())
        .select_from(run_steps.outerjoin(tasks, tasks.c.uid == run_steps.c.task_uid))
        .where(
            run_steps.c.run_id == runs.c.id,
            run_steps.c.task_uid.is_not(None),
            or_(tasks.c.id.is_(None), ~is_of_step, ~is_same),
        )
        .correlate(runs)
        .scalar_subquery()
    )
