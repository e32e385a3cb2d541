"""Count what goes wrong with a task on its row, and keep which event ended a run."""

import sqlalchemy as sa
from alembic import op

from models.columns import Moment, PublicId

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Both databases add a column with a constant default in the catalogue alone: no row is rewritten.
    op.add_column("task", sa.Column("missing_count", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("task", sa.Column("missing_since", Moment(), nullable=True))
    op.add_column("task", sa.Column("exception_count", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("run", sa.Column("ended_event", PublicId(), nullable=True))


def downgrade() -> None:
    op.drop_column("run", "ended_event")
    op.drop_column("task", "exception_count")
    op.drop_column("task", "missing_since")
    op.drop_column("task", "missing_count")
