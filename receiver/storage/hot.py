"""Queries of the hot path: compiled once, and run past SQLAlchemy on the driver itself.

A few rows by their keys take microseconds; SQLAlchemy's own work on them takes ten times as long. Only for what is
looked up by key, a bounded number at a time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
        self._parts = [_Part(name, mine, decoder) for name, mine in hot.tables.items()]

    def row(self, raw: Sequence[Any]) -> HotRow:
        """Return a row of the driver's: the columns by name, apart for each table."""
        values = iter(raw)
        return {part.name: part.read(values) for part in self._parts}


class _Part:
    """One table's columns of a row."""

    def __init__(
        self,
        name: str,
        columns: Sequence[ColumnElement[Any]],
        decoder: Callable[[TypeEngine[Any]], Decoder | None],
    ) -> None:
        self.name = name
        self._names = [str(each.key) for each in columns]
        self._decoders = [(str(each.key), decode) for each in columns if (decode := decoder(each.type)) is not None]

    def read(self, values: Iterator[Any]) -> dict[str, Any]:
        """Take this part's values, the next ones of the row."""
        part = dict(zip(self._names, values, strict=False))
        for name, decode in self._decoders:
            value = part[name]
            if value is not None:
                part[name] = decode(value)
        return part
