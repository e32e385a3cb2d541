"""Let PostgreSQL's autovacuum look after the tables that change most by what their rows do.

A table's settings cannot be made for one that is partitioned: `ringback database partition` needs this revision, and
gives each new partition the settings of the table that it was. A later migration that changes them has to change them
on the partitions.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
readable_from = "0007"

_QUEUE = {
    # Of the server's default, a fifth of all rows, a table of ten million has two million dead ones before it is
    # vacuumed. Each claim reads those in the indexes of what is due, which have a few live entries.
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "1000",
    # The planner's picture of what is due is old after minutes.
    "autovacuum_analyze_scale_factor": "0.02",
}
_LOG = {
    # Rows are inserted and never changed. Without dead rows only inserts start a vacuum, which marks pages as visible
    # to all (index-only scans) and freezes them while they are in memory, instead of all of them at once years later.
    "autovacuum_vacuum_insert_scale_factor": "0.05",
    # A purge deletes some percent of the rows each day; their space is for the next day's rows.
    "autovacuum_vacuum_scale_factor": "0.02",
    "autovacuum_analyze_scale_factor": "0.02",
}
SETTINGS: dict[str, dict[str, str]] = {
    # Inserted, claimed and settled: each row is changed several times, always in a column that an index has
    # (`due_at`, `status`), so that no free room on its page (`fillfactor`) keeps the indexes from new entries.
    "task": _QUEUE,
    "delivery": _QUEUE,
    "event": _LOG,
    "delivery_attempt": _LOG,
    "task_attempt": _LOG,
    "receipt": _LOG,
    # Inserted, then deleted when the deliveries are written: short while the dead rows are gone, whatever its size.
    "fan_out": {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500"},
    # All rows are replaced each day. The response is added to no column of an index: with room on the page for it the
    # indexes get no second entry.
    "idempotency_key": {
        "autovacuum_vacuum_scale_factor": "0.05",
        "autovacuum_vacuum_insert_scale_factor": "0.1",
        "autovacuum_analyze_scale_factor": "0.05",
        "fillfactor": "60",
    },
    # A few rows that are changed again and again, in no column of an index: they stay on their page.
    "limit_use": {"fillfactor": "50"},
    "provider_budget": {"fillfactor": "50"},
    "organization": {"fillfactor": "70"},
    "subscription": {"fillfactor": "70"},
}
"""The settings of each table, by their names in PostgreSQL."""


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, settings in SETTINGS.items():
            op.execute(
                f"ALTER TABLE {table} SET ({', '.join(f'{name} = {value}' for name, value in settings.items())})"
            )


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, settings in SETTINGS.items():
            op.execute(f"ALTER TABLE {table} RESET ({', '.join(settings)})")
