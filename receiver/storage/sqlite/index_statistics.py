"""What SQLite assumes of each index when it chooses among them: that the database is large.

Without statistics SQLite takes an index that begins with the organization for one that leaves a few rows, where it may
leave all of them, and reads a million tasks to find one. It counts rows only when it is told to (`ANALYZE`, which holds
up every write for seconds), and a connection keeps what it read when it was opened: numbers that were counted while the
database was small are wrong when it has grown. So the numbers are written, not counted, and are the same in every
database: those of a large one, because every plan is quick in a small one. Each statement has one plan, everywhere.
Source of the format: https://www.sqlite.org/fileformat2.html#stat1tab
"""

from functools import cache

from sqlalchemy import Connection, Table, text

from models import core

_ROWS = 1_000_000
_SHORT = {
    "alert": 10,
    "api_key": 20,
    "bulk_action": 100,
    "fan_out": 100,
    "organization": 20,
    "provider_account": 100,
    "replay": 100,
    "run": 100_000,
    "run_step": 200_000,
    "sign_in_link": 10,
    "subscription": 100,
}
"""How many rows tables have that do not have a row for each task."""
_VALUES = {
    "action": 20,
    "api_key_id": 20,
    "at": 3000,
    "bulk": 2,
    "kind": 2,
    "model": 10,
    "organization_id": 1,
    "provider": 1,
    "reason": 5,
    "status": 4,
    "step": 3,
    "subscription_id": 20,
    "target": 1000,
    "task_type": 10,
    "type": 10,
    "value": 1000,
}
"""How many values a column has in a large database; others have another one in each row, or nearly."""
_SHARE = 20
"""A partial index has one of this many rows."""

_READ = text("SELECT tbl, idx, stat FROM sqlite_stat1")


def has_index_statistics(connection: Connection) -> bool:
    """Return whether the database has these statistics."""
    if not connection.execute(text("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'")).fetchall():
        return False
    return {tuple(row) for row in connection.execute(_READ)} == _statistics()


def write_index_statistics(connection: Connection) -> None:
    """Write the statistics in the place of any that are there. Connections that are opened later use them."""
    connection.execute(text("ANALYZE sqlite_schema"))  # makes the table, which nothing else may make
    connection.execute(text("DELETE FROM sqlite_stat1"))
    rows = [{"table": table, "index": index, "stat": stat} for table, index, stat in sorted(_statistics())]
    connection.execute(text("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (:table, :index, :stat)"), rows)


@cache
def _statistics() -> frozenset[tuple[str, str, str]]:
    return frozenset(
        (table.name, name, _numbers(table, columns, is_partial=is_partial))
        for table in core.metadata.tables.values()
        for name, columns, is_partial in _indexes(table)
    )


def _indexes(table: Table) -> list[tuple[str, list[str], bool]]:
    found = [(name, list(columns), is_partial) for of, name, columns, is_partial in core.INDEXES if of == table.name]
    key = [column.name for column in table.primary_key]
    return [*found, (f"sqlite_autoindex_{table.name}_1", key, False)] if len(key) > 1 else found


def _numbers(table: Table, columns: list[str], *, is_partial: bool) -> str:
    """Return how many rows the index has, then how many have one value of its first column, of two, of three."""
    rows = _SHORT.get(table.name, _ROWS) // (_SHARE if is_partial else 1)
    numbers = [max(1, rows)]
    for column in columns:
        numbers.append(max(1, numbers[-1] // _VALUES[column]) if column in _VALUES else 1)
    return " ".join(map(str, numbers))
