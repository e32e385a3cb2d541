"""Keep on disk what was intended: recalls, who sends a task, an unused first key, what a request found."""

import sqlalchemy as sa
from alembic import op

from models.columns import Moment, PublicId

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Both databases add a column that may be null in the catalogue alone: no row is rewritten.
    op.add_column("task", sa.Column("cancel_requested_at", Moment(), nullable=True))
    op.add_column("task", sa.Column("submit_token", PublicId(), nullable=True))
    op.add_column("api_key", sa.Column("sealed", sa.Text(), nullable=True))
    op.add_column("idempotency_key", sa.Column("found_state", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("idempotency_key", "found_state")
    op.drop_column("api_key", "sealed")
    op.drop_column("task", "submit_token")
    op.drop_column("task", "cancel_requested_at")
