"""Looking after a database by hand: is it whole, how large is it, can it be smaller."""

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, and_, func, select

import migrations
from models import TERMINAL, Submission
from receiver.errors import StartError
from receiver.settings import Settings
from receiver.storage.compatibility import present_schema
from receiver.storage.tables import tasks


class Severity(StrEnum):
    """How bad a finding is."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


class Finding(Struct, frozen=True):
    """One thing that was checked: its name, what was found, and where that is not good, what to do (`mend`)."""

    check: str
    found: str
    severity: Severity = Severity.GOOD
    mend: str = ""

    @property
    def words(self) -> str:
        """What was found, and what to do, on one line."""
        return f"{self.found}: {self.mend}" if self.mend else self.found


OwnFindings = Callable[[Connection], list[Finding]]
"""Checks what Ringback itself relies on in a database."""


class TableSize(Struct, frozen=True):
    """A table with its indexes. `rows` is an estimate on PostgreSQL; `bytes` is None where SQLite cannot tell it."""

    table: str
    rows: int
    bytes: int | None


class DatabaseSize(Struct, frozen=True):
    """How large a database is: all of its bytes, those of them that are free for new rows, and its tables."""

    bytes: int
    free: int | None
    tables: list[TableSize]


class Compacted(Struct, frozen=True):
    """The size of a database before and after it was compacted, in bytes."""

    before: int
    after: int


async def check_database(settings: Settings) -> list[Finding]:
    """Check a database, also one that is served; nothing is changed. Raises `StartError` if it cannot be opened."""
    if settings.is_sqlite:
        from receiver.storage.sqlite.maintenance import check_file_of

        return check_file_of(settings.sqlite_path, _own_findings)
    from receiver.storage.postgresql.maintenance import check_server

    return await check_server(settings.database_url, _own_findings)


async def size_of_database(settings: Settings) -> DatabaseSize:
    """Return the size of a database, also of one that is served. Raises `StartError`."""
    if settings.is_sqlite:
        from receiver.storage.sqlite.maintenance import size_of_file

        return size_of_file(settings.sqlite_path)
    from receiver.storage.postgresql.maintenance import size_on_server

    return await size_on_server(settings.database_url)


async def compact_database(settings: Settings) -> Compacted:
    """Give the space of purged rows back: on SQLite to the disk, while nothing serves it; on PostgreSQL to new rows.

    Raises `StartError`.
    """
    if settings.is_sqlite:
        from receiver.storage.sqlite.maintenance import compact_file

        return compact_file(settings.sqlite_path)
    from receiver.storage.postgresql.maintenance import vacuum_server

    return await vacuum_server(settings.database_url)


class Partitioned(Struct, frozen=True):
    """What became of a table: whether it was changed (`done`), and up to which row key its first partition goes.

    `first_until` is None for a table without partitions.
    """

    table: str
    done: bool
    first_until: int | None


async def partition_database(settings: Settings) -> list[Partitioned]:
    """Partition the tables that grow most, also while they are served. Raises `StartError`."""
    _refuse_sqlite(settings)
    from receiver.storage.postgresql.partitioning import partition_server
    from receiver.storage.postgresql.partitions import period_for

    return await partition_server(settings.database_url, period_for(timedelta(days=settings.retention_days)))


async def unite_database(settings: Settings) -> list[Partitioned]:
    """Make whole tables of partitions again, while nothing serves them. Raises `StartError`."""
    _refuse_sqlite(settings)
    from receiver.storage.postgresql.uniting import unite_server

    return await unite_server(settings.database_url)


def _refuse_sqlite(settings: Settings) -> None:
    if settings.is_sqlite:
        raise StartError("SQLite has no partitions; a purge there leaves its space to new rows")


def _own_findings(connection: Connection) -> list[Finding]:
    """Check what Ringback itself relies on."""
    schema = present_schema(connection)
    if schema.revision is None:
        return [Finding("schema", "none", Severity.BAD, "run `ringback migrate`")]
    try:
        if schema.is_to_be_migrated():
            found = f"{schema.revision}, this version's is {migrations.HEAD}"
            return [Finding("schema", found, Severity.WARNING, "run `ringback migrate`")]
    except StartError as error:
        found, _, mend = error.message.partition("; ")
        return [Finding("schema", found, Severity.BAD, mend)]
    return [Finding("schema", schema.revision), *(_counted(connection, *rule) for rule in _RULES)]


_IS_OPEN = tasks.c.status.not_in(TERMINAL)
_IS_UNNAMED = and_(tasks.c.submission == Submission.ACCEPTED, tasks.c.provider_task_id.is_(None))
_RULES: tuple[tuple[str, Any], ...] = (
    ("open tasks that no process will look at", and_(_IS_OPEN, tasks.c.due_at.is_(None))),
    ("open tasks that the provider accepted without an id", and_(_IS_OPEN, _IS_UNNAMED)),
)


def _counted(connection: Connection, what: str, condition: Any) -> Finding:
    count = connection.execute(select(func.count()).select_from(tasks).where(condition)).scalar_one()
    if not count:
        return Finding(what, "0")
    return Finding(what, f"{count}: rows were changed by hand, or Ringback has a bug", Severity.BAD, "please report it")
