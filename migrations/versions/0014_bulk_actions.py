"""Keep requests to cancel, retry or refresh every task that matches a filter, with their progress."""

import sqlalchemy as sa
from alembic import op

from models.columns import BigKey, Document, Moment, PublicId

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
readable_from = "0007"


def upgrade() -> None:
    op.create_table(
        "bulk_action",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("uid", PublicId(), nullable=False),
        sa.Column("organization_id", BigKey, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("requested_by", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("filter", Document, nullable=False),
        sa.Column("matched", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("failed", Document, nullable=True),
        sa.Column("cursor", BigKey, nullable=False),
        sa.Column("newest", BigKey, nullable=False),
        sa.Column("batch", Document, nullable=True),
        sa.Column("due_at", Moment(), nullable=True),
        sa.Column("leased", sa.Boolean(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uid"),
    )
    op.create_index("ix_bulk_action_organization_id", "bulk_action", ["organization_id", "id"])
    op.create_index("ix_bulk_action_status", "bulk_action", ["status"])


def downgrade() -> None:
    op.drop_index("ix_bulk_action_status", table_name="bulk_action")
    op.drop_index("ix_bulk_action_organization_id", table_name="bulk_action")
    op.drop_table("bulk_action")
