"""How the tasks and runs of a report stand: those without a gap in one of three ways, the others by their gap."""

from typing import Any

from sqlalchemy import CTE, Select, func, select

ENDED, OPEN, OVERDUE = "ended", "open", "overdue"
"""Without a gap; what is overdue is open, and nothing has acted on it for long."""


def count_standings(found: CTE) -> Select[Any]:
    """Return the query for (status, standing, count); `found` has the id, uid, status and standing of each row."""
    columns = (found.c.status, found.c.standing)
    return select(*columns, func.count().label("count")).group_by(*columns)


def rows_standing(found: CTE, name: str, standing: str, limit: int) -> Select[Any]:
    """Return the query for (`name`, status) of the rows of `found` that stand so; `name` is that of their public id."""
    wanted = select(found.c.uid.label(name), found.c.status).where(found.c.standing == standing)
    return wanted.order_by(found.c.id).limit(limit)
