"""Queries of the hot path: compiled once, and run past SQLAlchemy on the driver itself.

A few rows by their keys take microseconds; SQLAlchemy's own work on them takes ten times as long. Only for what is
looked up by key, a bounded number at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Dialect, Select, select
from sqlalchemy.types import TypeEngine

HotRow = dict[str, dict[str, Any]]
Decoder = Callable[[Any], Any]


class HotQuery:
    """A query for rows whose `key` is one of those that it is run with.

    `tables` names the columns that each part of a row has; `join` puts the query together.
    """

    def __init__(
        self,
        key: ColumnElement[Any],
        tables: Mapping[str, Sequence[ColumnElement[Any]]],
        join: Callable[[Select[Any]], Select[Any]],
    ) -> None:
        columns = [each for mine in tables.values() for each in mine]
        labels = [each.label(f"column_{number}") for number, each in enumerate(columns)]
        self.key = key
        self.tables = tables
        self.query = join(select(*labels))


class HotPlan:
    """A query as one database is asked it, with what turns the driver's values into those that Core would give."""

    def __init__(
        self,
        hot: HotQuery,
        dialect: Dialect,
        among_keys: Callable[[ColumnElement[Any]], ColumnElement[bool]],
        decoder: Callable[[TypeEngine[Any]], Decoder | None],
    ) -> None:
        self.sql = str(hot.query.where(among_keys(hot.key)).compile(dialect=dialect))
        self._parts: list[tuple[str, int, list[tuple[str, Decoder | None]]]] = []
        start = 0
        for name, mine in hot.tables.items():
            self._parts.append((name, start, [(str(each.key), decoder(each.type)) for each in mine]))
            start += len(mine)

    def row(self, raw: Sequence[Any]) -> HotRow:
        """Return a row of the driver's: the columns by name, apart for each table."""
        return {name: _part(raw, start, columns) for name, start, columns in self._parts}


def _part(raw: Sequence[Any], start: int, columns: Sequence[tuple[str, Decoder | None]]) -> dict[str, Any]:
    return {
        name: value if decode is None or value is None else decode(value)
        for (name, decode), value in zip(columns, raw[start : start + len(columns)], strict=True)
    }
