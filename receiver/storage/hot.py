"""Queries of the hot path: compiled once with SQLAlchemy, then run on the driver itself.

The database finds a few rows by their keys in microseconds; SQLAlchemy's own work for each query takes ten times as
long. Use this only for queries by key, with a bounded number of keys.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Dialect, Select, Text, cast, select
from sqlalchemy.types import TypeEngine

from models.columns import DocumentType

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
    return isinstance(column.type, DocumentType)


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
        self._tables: list[tuple[str, list[str], slice]] = []
        """The name of each table, those of its columns, and where a row has their values."""
        self._decoders: list[tuple[int, Decoder]] = []
        """The decoders of the columns that need one, by their places in a row."""
        begin = 0
        for name, columns in hot.tables.items():
            self._tables.append((name, [str(each.key) for each in columns], slice(begin, begin + len(columns))))
            for place, column in enumerate(columns, begin):
                if (decode := decoder(column.type)) is not None:
                    self._decoders.append((place, decode))
            begin += len(columns)

    def row(self, raw: Iterable[Any]) -> HotRow:
        """Convert a row of the driver's: the columns by name, for each table."""
        values = list(raw)
        for place, decode in self._decoders:
            value = values[place]
            if value is not None:
                values[place] = decode(value)
        return {name: dict(zip(names, values[part], strict=False)) for name, names, part in self._tables}
