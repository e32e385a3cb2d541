"""Keep which request caused an event."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
readable_from = "0007"


def upgrade() -> None:
    # Without a default, so neither database rewrites the table.
    op.add_column("event", sa.Column("request_id", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("event", "request_id")
