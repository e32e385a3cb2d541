"""Keep which system events were told, and which alerts are to be sent."""

import sqlalchemy as sa
from alembic import op

from models.columns import BigKey, Moment, PublicId

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
readable_from = "0007"


def upgrade() -> None:
    op.create_table(
        "system_condition",
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("told_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("type", "subject"),
    )
    op.create_table(
        "alert",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("event_uid", PublicId(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("due_at", Moment(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_alert_due_at", "alert", ["due_at"])


def downgrade() -> None:
    op.drop_index("ix_alert_due_at", table_name="alert")
    op.drop_table("alert")
    op.drop_table("system_condition")
