"""Queries for the hot path on SQLite: compiled once, run on the loop's own thread.

A few rows by their keys, from pages that are in memory, take microseconds; handing them to a thread and back takes
a hundred times as long. Only for what is looked up by key, a bounded number at a time.
"""

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import BindParameter, Boolean, ColumnElement, Select, bindparam, column, func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import JSON, TypeEngine

from models.columns import Moment

Decoder = Callable[[Any], Any]
HotRow = dict[str, dict[str, Any]]
_KEYS: BindParameter[str] = bindparam("keys")


def among_keys(key: Any) -> Any:
    """Return the condition that `key` is one of those that the query is run with."""
    return key.in_(select(column("value")).select_from(func.json_each(_KEYS).table_valued("value")))


class HotQuery:
    """A query by keys (`among_keys`), with what turns its raw values into those that Core would give.

    `tables` names the columns that each part of a row has; `join` puts the query together.
    """

    def __init__(
        self, tables: Mapping[str, Sequence[ColumnElement[Any]]], join: Callable[[Select[Any]], Select[Any]]
    ) -> None:
        columns = [each for mine in tables.values() for each in mine]
        labels = [each.label(f"column_{number}") for number, each in enumerate(columns)]
        self.sql = str(join(select(*labels)).compile(dialect=sqlite.dialect()))
        self.parts: list[tuple[str, int, list[tuple[str, Decoder | None]]]] = []
        start = 0
        for name, mine in tables.items():
            self.parts.append((name, start, [(str(each.key), _decoder(each.type)) for each in mine]))
            start += len(mine)


class HotReader:
    """A connection that reads on the thread that made it."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        self._connection.execute("PRAGMA query_only=ON")

    def read(self, query: HotQuery, keys: Collection[int]) -> list[HotRow]:
        """Return the query's rows for these keys: the columns by name, apart for each table."""
        with closing(self._connection.cursor()) as cursor:
            rows = cursor.execute(query.sql, (orjson.dumps(list(keys)).decode(),)).fetchall()
        return [{name: _part(row, start, columns) for name, start, columns in query.parts} for row in rows]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def read_document(value: Any) -> Any:
    """Read a document. A bare number is one already: SQLite makes numbers of what looks like one in such a column."""
    return orjson.loads(value) if isinstance(value, str | bytes) else value


def read_moment(value: str) -> datetime:
    """Read a moment as SQLAlchemy writes it."""
    return datetime.fromisoformat(value).replace(tzinfo=UTC)


def _decoder(kind: TypeEngine[Any]) -> Decoder | None:
    if isinstance(kind, JSON):
        return read_document
    if isinstance(kind, Moment):
        return read_moment
    return bool if isinstance(kind, Boolean) else None


def _part(row: Sequence[Any], start: int, columns: Sequence[tuple[str, Decoder | None]]) -> dict[str, Any]:
    return {
        name: value if decode is None or value is None else decode(value)
        for (name, decode), value in zip(columns, row[start : start + len(columns)], strict=True)
    }
