"""A count that reads no more rows than it has to."""

from typing import Any

from sqlalchemy import ColumnElement, Select, func, select


def count_up_to(most: int, column: ColumnElement[Any], condition: ColumnElement[bool]) -> Select[Any]:
    """Return the query for `count`: how many rows meet a condition, up to `most`; `column` is one of their table's."""
    found = select(column).where(condition).limit(most).subquery()
    return select(func.count().label("count")).select_from(found)
