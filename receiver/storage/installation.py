"""Facts of the whole installation, by name: each a JSON object in a row of its own."""

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import Connection, Select, delete, insert, inspect, select

from receiver.storage.tables import installation_facts

SCHEMA = "schema"
"""`revision`, and `readable_from`: the oldest version, by its own newest revision, that may run on that schema."""
LAST_BACKUP = "last_backup"
"""`at` (ISO 8601), `bytes` and `seconds` of the last backup that `ringback backup` made."""
LAST_RESTORE = "last_restore"
"""`at` (ISO 8601): when this database was last restored from a backup."""


def fact(name: str) -> Select[Any]:
    """Return the query for a fact, as `value` in JSON; no row if it is not known."""
    return select(installation_facts.c.value).where(installation_facts.c.name == name)


def read_fact(connection: Connection, name: str) -> dict[str, Any] | None:
    """Return a fact; None if it is not known, or if the schema is too old to have any."""
    if not inspect(connection).has_table(installation_facts.name):
        return None
    value = connection.execute(fact(name)).scalar_one_or_none()
    return None if value is None else dict(orjson.loads(value))


def write_fact(connection: Connection, name: str, value: Mapping[str, Any]) -> bool:
    """Write a fact in the connection's transaction; return False if the schema is too old to have any."""
    if not inspect(connection).has_table(installation_facts.name):
        return False
    connection.execute(delete(installation_facts).where(installation_facts.c.name == name))
    connection.execute(insert(installation_facts), [{"name": name, "value": orjson.dumps(value).decode()}])
    return True
