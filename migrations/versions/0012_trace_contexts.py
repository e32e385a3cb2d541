"""Keep the trace context of a client's create with its task or run (W3C `traceparent`).

Earlier rows have none: nothing of their traces is known.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
readable_from = "0007"

_TABLES = ("task", "run")


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(table, sa.Column("trace_context", sa.String(), nullable=True))


def downgrade() -> None:
    for table in _TABLES:
        op.drop_column(table, "trace_context")
