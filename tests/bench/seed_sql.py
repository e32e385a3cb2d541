"""SQL that inserts many rows at once, for both databases."""

from collections.abc import Callable, Mapping, Sequence

from tests.bench.databases import Store


class _SQLite:
    """SQL expressions for SQLite. `n` is the number of the row."""

    false, true = "0", "1"

    def series(self, first: int, last: int) -> str:
        return (
            f"(WITH RECURSIVE series(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM series WHERE n < {last}) "
            "SELECT n FROM series)"
        )

    def uid(self, kind: int, number: str) -> str:
        return f"printf('01900000-0000-7000-{kind:x}000-%012x', {number})"

    def uid_at(self, seconds: str, number: str) -> str:
        milliseconds = f"CAST(({seconds}) * 1000 AS INTEGER)"
        return f"printf('%08x-%04x-7000-8000-%012x', {milliseconds} >> 16, {milliseconds} & 65535, {number})"

    def seconds(self, moment: str) -> str:
        return f"(julianday({moment}) - 2440587.5) * 86400.0"

    def moment(self, seconds: str) -> str:
        return f"strftime('%Y-%m-%d %H:%M:%f000', {seconds}, 'unixepoch')"

    def document(self, text: str) -> str:
        return text


class _PostgreSQL:
    """SQL expressions for PostgreSQL. `n` is the number of the row."""

    false, true = "false", "true"

    def series(self, first: int, last: int) -> str:
        return f"generate_series({first}::bigint, {last}::bigint) AS n"

    def uid(self, kind: int, number: str) -> str:
        return f"('01900000-0000-7000-{kind:x}000-' || lpad(to_hex({number}), 12, '0'))::uuid"

    def uid_at(self, seconds: str, number: str) -> str:
        time = f"lpad(to_hex((({seconds}) * 1000)::bigint), 12, '0')"
        return f"({time} || '70008000' || lpad(to_hex({number}), 12, '0'))::uuid"

    def seconds(self, moment: str) -> str:
        return f"extract(epoch FROM {moment})"

    def moment(self, seconds: str) -> str:
        return f"to_timestamp({seconds})"

    def document(self, text: str) -> str:
        return f"({text})::jsonb"


Dialect = _SQLite | _PostgreSQL


def dialect_of(store: Store) -> Dialect:
    """Return the SQL expressions of a store."""
    return _SQLite() if store.is_sqlite else _PostgreSQL()


def insert_from(table: str, columns: Mapping[str, str], source: str) -> str:
    """Return the statement that inserts a row for each row of `source`; `columns` has an expression for each column."""
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM {source}"


def fill(store: Store, table: str, *inserts: str, tell: Callable[[int], None] | None = None) -> None:
    """Run inserts of very many rows as fast as the database can; `tell` is told how many of them have been run."""
    (_fill_sqlite if store.is_sqlite else _fill_postgresql)(store, table, inserts, tell or (lambda _: None))


def _fill_sqlite(store: Store, table: str, inserts: Sequence[str], tell: Callable[[int], None]) -> None:
    indexes = store.rows(
        f"SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = '{table}' AND sql <> ''"
    )
    store.execute(
        "PRAGMA synchronous = OFF",
        "PRAGMA cache_size = -262144",
        *(f"DROP INDEX {name}" for name, _ in indexes),
    )
    for number, insert in enumerate(inserts, start=1):
        store.execute(insert, "PRAGMA wal_checkpoint(TRUNCATE)")
        tell(number)
    for _, sql in indexes:
        store.execute(sql, "PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()  # so that the next connection has the usual pragmas


def _fill_postgresql(store: Store, table: str, inserts: Sequence[str], tell: Callable[[int], None]) -> None:
    indexes = store.rows(
        f"SELECT indexname, indexdef FROM pg_indexes WHERE tablename = '{table}' AND indexname LIKE 'ix%'"
    )
    store.execute(
        "SET maintenance_work_mem = '512MB'",
        "SET session_replication_role = replica",  # skips a million checks of the same foreign key
        *(f"DROP INDEX {name}" for name, _ in indexes),
    )
    for number, insert in enumerate(inserts, start=1):
        store.execute(insert)
        tell(number)
    store.execute(
        *(definition for _, definition in indexes),
        f"VACUUM (ANALYZE, FREEZE) {table}",  # autovacuum would do it a little later
        "CHECKPOINT",
    )
    store.close()
