"""Queries of the hot path: compiled once with SQLAlchemy, then run on the driver itself.

The database finds a few rows by their keys in microseconds; SQLAlchemy's own work for each query takes ten times as
long. Use this only for queries by key, with a bounded number of keys.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import JSON, ColumnElement, Dialect, Select, Text, cast, select
from sqlalchemy.types import TypeEngine

HotRow = dict[str, dict[str, Any]]
"""One row: for each table of the query, its columns by name."""
Decoder = Callable[[Any], Any]


class HotQuery:
    """A query for the rows whose column `key` has one of the values that it is run with.

    `tables` has the columns to read, under the name that each table has in a `HotRow`; `join` adds the joins to the
    select of those columns.
    """

    def __init__(
        self,
        key: ColumnElement[Any],
        tables: Mapping[str, Sequence[ColumnElement[Any]]],
        join: Callable[[Select[Any]], Select[Any]],
    ) -> None:
        columns = [each for of_table in tables.values() for each in of_table]
        labels = [each.label(f"column_{number}") for number, each in enumerate(columns)]
        self.key = key
        self.tables = tables
        self.query = join(select(*labels))
        texts = [cast(each, Text) if _is_document(each) else each for each in columns]
        self._with_texts = join(select(*(each.label(f"column_{number}") for number, each in enumerate(texts))))

    def among(self, keys: Collection[int]) -> Select[Any]:
        """Return the query for the rows with these keys, to be run with SQLAlchemy. Its documents come as text."""
        return self._with_texts.where(self.key.in_(keys))

    def row(self, values: Iterable[Any]) -> HotRow:
        """Return the values of a row of `among`, by table, the documents decoded."""
        rest = iter(values)
        return {
            name: {str(column.key): _decoded(column, value) for column, value in zip(columns, rest, strict=False)}
            for name, columns in self.tables.items()
        }


def _is_document(column: ColumnElement[Any]) -> bool:
    return isinstance(column.type, JSON)


def _decoded(column: ColumnElement[Any], value: Any) -> Any:
    return orjson.loads(value) if value is not None and _is_document(column) else value


class HotPlan:
    """A `HotQuery` compiled for one database, with the decoders that Core would apply to the driver's values.

    `among_keys` builds the condition that a column is among the keys; `decoder` returns the decoder for a column's
    type, or None if the driver's value is right as it is.
    """

    def __init__(
        self,
        hot: HotQuery,
        dialect: Dialect,
        among_keys: Callable[[ColumnElement[Any]], ColumnElement[bool]],
        decoder: Callable[[TypeEngine[Any]], Decoder | None],
    ) -> None:
        self.sql = str(hot.query.where(among_keys(hot.key)).compile(dialect=dialect))
        self._tables = [_TableColumns(name, columns, decoder) for name, columns in hot.tables.items()]

    def row(self, raw: Sequence[Any]) -> HotRow:
        """Convert a row of the driver's: the columns by name, for each table."""
        values = iter(raw)
        return {table.name: table.read(values) for table in self._tables}


class _TableColumns:
    """The columns of one table in a row."""

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
        """Consume the table's values, which are the next ones of the row; return them decoded, by name."""
        row = dict(zip(self._names, values, strict=False))
        for name, decode in self._decoders:
            value = row[name]
            if value is not None:
                row[name] = decode(value)
        return row
