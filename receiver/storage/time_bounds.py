"""Where in a table the rows of a time begin and end: a bound for row keys, by the time in the rows' own ids.

No table has an index on when its rows were created, which would cost each write. But row keys grow with time, and so do
ids (UUIDv7), which have an index. So a row that was created at about the time is found by its id, and its row key is
the bound. An id may be older than its row: a request that is repeated keeps its ids for a day. Hence the times of the
rows are compared too, and the bound is the outermost of several rows.
"""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Table, and_, func, select

from receiver.domain.ids import first_id_at

_SLACK = timedelta(hours=1)
"""By how much the clocks of processes may differ, and a commit take."""
_ROWS = 20
_GREATEST = 2**63 - 1


def is_after(table: Table, moment: datetime) -> ColumnElement[bool]:
    """Return the condition that a row was inserted after a time, or a little before it."""
    near = table.alias("near").c
    older = and_(near.uid < first_id_at(_shifted(moment, -_SLACK)), near.created_at <= moment)
    found = select(near.id).where(older).order_by(near.uid.desc()).limit(_ROWS).subquery()
    return table.c.id > select(func.coalesce(func.min(found.c.id), 0)).scalar_subquery()


def is_before(table: Table, moment: datetime) -> ColumnElement[bool]:
    """Return the condition that a row was inserted before a time, or a little after it."""
    near = table.alias("near").c
    newer = and_(near.uid >= first_id_at(_shifted(moment, _SLACK)), near.created_at >= moment)
    found = select(near.id).where(newer).order_by(near.uid).limit(_ROWS).subquery()
    return table.c.id < select(func.coalesce(func.max(found.c.id), _GREATEST)).scalar_subquery()


def _shifted(moment: datetime, by: timedelta) -> datetime:
    """Return the moment so much later; the moment itself where no year is left for that."""
    try:
        return moment + by
    except OverflowError:
        return moment
