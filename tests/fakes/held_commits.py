"""Holds COMMITs on a real PostgreSQL, as a server does that waits for its standby, or for its disk."""

from collections.abc import Iterator
from contextlib import contextmanager

from receiver.storage.postgresql.one_statement import MARK
from tests.fakes.databases import outside

_HOLD = (
    "CREATE TABLE IF NOT EXISTS held (by_the_test boolean)",
    "CREATE OR REPLACE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ "
    "BEGIN WHILE EXISTS (SELECT FROM held) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NULL; END $$",
    "DROP TRIGGER IF EXISTS hold ON {table}",
    "CREATE CONSTRAINT TRIGGER hold AFTER INSERT OR UPDATE ON {table} "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION hold()",
    "INSERT INTO held VALUES (true)",
)
_HELD = (
    "FROM pg_stat_activity WHERE datname = current_database() AND backend_xid IS NOT NULL "
    f"AND (query = 'COMMIT' OR starts_with(query, '{MARK}'))"
)
HELD = f"SELECT pid {_HELD}"
"""Returns a row for each COMMIT that is held."""


@contextmanager
def held_commits(url: str, table: str = "task", when: str = "true") -> Iterator[None]:
    """Hold each COMMIT of a transaction that writes such a row of the table, until the context ends."""
    with outside(url) as server:
        for statement in _HOLD:
            server.execute(statement.format(table=table, when=when))
        try:
            yield
        finally:
            server.execute("DELETE FROM held")


def end_held_commits(url: str) -> None:
    """End the sessions whose COMMIT is held, so that it comes to nothing."""
    with outside(url) as server:
        server.execute(f"SELECT pg_terminate_backend(pid, 5000) {_HELD}")
