"""Partitions of the tables that grow most: each has the rows of a range of row keys, which are as old as each other.

`event` and `delivery` are divided by their own keys, so that keys of other tables can refer to them, and
`delivery_attempt` by its delivery's. A public id is unique in each partition; the same one in two of them is impossible
in practice, by the time and the random bits in it.

What no partition has a range for goes to the default one, so that a missing partition loses no write. Ranges may have
gaps, which are the default one's.
"""

import re
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from sqlalchemy import text

from receiver.domain.ids import first_id_at
from receiver.storage.postgresql.core_connection import CoreConnection

LEAST_ROWS = 1_000_000
"""A partition has room for at least as many row keys."""
BOUND = "ringback_partition_bound"
"""The constraint that a table has while it is about to become the first partition."""
_SHORTEST = timedelta(days=7)
_MOST_KEPT = 24
_RANGE = re.compile(r"FOR VALUES FROM \((?:MINVALUE|'(\d+)')\) TO \('(\d+)'\)")
_PARTITIONS = text(
    "SELECT relname, pg_get_expr(relpartbound, pg_class.oid) FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
    "WHERE inhparent = to_regclass(:name)"
)
_OWN_KEYS = text(
    "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE conrelid = to_regclass(:name) AND contype IN ('p', 'u') AND conparentid = 0 ORDER BY conname"
)
_SETTINGS = text("SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = to_regclass(:name)")
_IS_PARTITIONED = text("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(:name)")


def period_for(retention: timedelta) -> timedelta:
    """Return for how long a partition is: a week, and more where rows are kept for long, so that there are few.

    A query that has no range of keys looks into each.
    """
    return max(_SHORTEST, retention / _MOST_KEPT)


class Divided(Struct, frozen=True):
    """A table that may be partitioned, by the key `column`, whose values are row keys of the table `numbered`."""

    table: str
    column: str
    numbered: str

    @property
    def default(self) -> str:
        """The name of its default partition."""
        return f"{self.table}_default"

    def name_from(self, first: int) -> str:
        """Return the name of the partition that begins with a key."""
        return f"{self.table}_from_{first}"


DIVIDED = (
    Divided("event", "id", "event"),
    Divided("delivery", "id", "delivery"),
    Divided("delivery_attempt", "delivery_id", "delivery"),
)
"""In the order in which they are made: each refers to those before it."""


class Partition(Struct, frozen=True, order=True):
    """A partition, for the keys from `first` up to and without `end`."""

    first: int
    end: int
    name: str


async def is_partitioned(connection: CoreConnection, table: str) -> bool:
    """Return whether a table is partitioned."""
    return bool((await connection.execute(_IS_PARTITIONED, {"name": table})).scalar_one())


async def partitions_of(connection: CoreConnection, table: str) -> list[Partition]:
    """Return the partitions of a table but for the default one, in their order."""
    rows = (await connection.execute(_PARTITIONS, {"name": table})).all()
    found = ((name, _RANGE.fullmatch(bound)) for name, bound in rows)
    return sorted(Partition(int(each[1] or 0), int(each[2]), name) for name, each in found if each is not None)


async def newest_key(connection: CoreConnection, table: str) -> int:
    """Return the last row key that a table has given."""
    sequence = await _one(connection, f"SELECT pg_get_serial_sequence('{table}', 'id')")
    return int(await _one(connection, f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}"))


async def rows_since(connection: CoreConnection, table: str, moment: datetime) -> int:
    """Return how many rows a table has got since a moment and still has, found by the time in the public ids."""
    count = text(f"SELECT count(*) FROM {table} WHERE uid >= CAST(:uid AS uuid)")
    return int((await connection.execute(count, {"uid": first_id_at(moment)})).scalar_one())


async def is_empty(connection: CoreConnection, table: str, condition: str = "true") -> bool:
    """Return whether a table has no row of a condition."""
    return not await _one(connection, f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {condition})")


async def add_partition(connection: CoreConnection, divided: Divided, template: str, first: int, end: int) -> str:
    """Add an empty partition for a range of keys, in a transaction that has the tables to itself; return its name.

    It gets the settings and the keys of the partition `template`, and all else from the table.
    """
    name = divided.name_from(first)
    await _make(connection, divided, name, template, f"FOR VALUES FROM ({first}) TO ({end})")
    return name


async def add_default(connection: CoreConnection, divided: Divided, template: str) -> None:
    """Add the default partition, which takes what no other does."""
    await _make(connection, divided, divided.default, template, "DEFAULT")


def like(table: str) -> str:
    """Return the clause that gives a new table the columns of another."""
    return f"(LIKE {table} INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION)"


async def own_keys_of(connection: CoreConnection, partition: str) -> list[str]:
    """Return the definitions of the keys that a partition has by itself, not from its table."""
    return list((await connection.execute(_OWN_KEYS, {"name": partition})).scalars().all())


async def settings_of(connection: CoreConnection, partition: str) -> str:
    """Return the clause that gives a new table the settings of a partition; empty if it has none."""
    found = (await connection.execute(_SETTINGS, {"name": partition})).scalar_one()
    return f" WITH ({found})" if found else ""


async def analyze(connection: CoreConnection, divided: Divided) -> None:
    """Let the planner know a table with all its partitions: autovacuum looks at each partition alone."""
    await connection.exec_driver_sql(f"ANALYZE {divided.table}")


async def _make(connection: CoreConnection, divided: Divided, name: str, template: str, bound: str) -> None:
    settings = await settings_of(connection, template)
    await connection.exec_driver_sql(f"CREATE TABLE {name} {like(divided.table)}{settings}")
    for key in await own_keys_of(connection, template):
        await connection.exec_driver_sql(f"ALTER TABLE {name} ADD {key}")
    await connection.exec_driver_sql(f"ALTER TABLE {divided.table} ATTACH PARTITION {name} {bound}")


async def _one(connection: CoreConnection, query: str) -> Any:
    return (await connection.execute(text(query))).scalar_one()
