"""What the hot statements share: rows as the driver takes them, and their keys."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Table

from receiver.storage.sqlite.values import encoder_of
from receiver.storage.tables import run_steps, runs, tasks
from receiver.storage.transaction import Values

_ENCODERS: Mapping[Table, Mapping[str, Callable[[Any], Any] | None]] = {
    table: {column.name: encoder_of(column.type) for column in table.columns} for table in (tasks, runs, run_steps)
}


def encoded(table: Table, names: Sequence[str], row: Values) -> list[Any]:
    """Return the values of these columns, encoded."""
    encoders = _ENCODERS[table]
    return [
        value if value is None or (encode := encoders[name]) is None else encode(value)
        for name in names
        for value in (row[name],)
    ]


def placeholders(count: int) -> str:
    """Return the parameters for `count` values."""
    return ", ".join(["?"] * count)


def next_key(driver: sqlite3.Connection, table: Table) -> int:
    """Return the row key that is behind the last one."""
    (last,) = driver.execute(f"SELECT max(id) FROM {table.name}").fetchone()
    return (last or 0) + 1
