"""Keep sums of what happened by time, so that numbers are shown without counting rows, and values of metadata.

The tables are empty at first: the service counts the events and attempts that are there in the background, from the
oldest one on (`receiver.workers.statistics`).
"""

import sqlalchemy as sa
from alembic import op

from models.columns import BigKey, BytewiseText, Document, Moment

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
readable_from = "0007"


def upgrade() -> None:
    positions = op.create_table(
        "statistic_position",
        sa.Column("log", sa.String(), nullable=False),
        sa.Column("position", BigKey, nullable=False),
        sa.Column("holder", sa.String(), nullable=True),
        sa.Column("held_until", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("log"),
    )
    op.bulk_insert(positions, [{"log": "events", "position": 0}, {"log": "attempts", "position": 0}])
    op.create_table(
        "task_statistic",
        sa.Column("organization_id", BigKey, nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in ("created", "completed", "failed", "cancelled", "by_webhook", "by_poll")
        ),
        sa.Column("durations", Document, nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"]),
        sa.PrimaryKeyConstraint("organization_id", "step", "at", "provider", "model"),
    )
    op.create_index("ix_task_statistic_at", "task_statistic", ["step", "at"])
    op.create_table(
        "delivery_statistic",
        sa.Column("organization_id", BigKey, nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("subscription_id", BigKey, nullable=False),
        sa.Column("at", Moment(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("attempts", "delivered", "dead")),
        sa.Column("latencies", Document, nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"]),
        sa.PrimaryKeyConstraint("organization_id", "step", "subscription_id", "at"),
    )
    op.create_index("ix_delivery_statistic_at", "delivery_statistic", ["step", "at"])
    op.create_table(
        "task_metadata_value",
        sa.Column("organization_id", BigKey, nullable=False),
        sa.Column("value", BytewiseText, nullable=False),
        sa.Column("task_id", BigKey, nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"]),
        sa.PrimaryKeyConstraint("organization_id", "value", "task_id"),
    )
    op.create_index("ix_task_metadata_value_task_id", "task_metadata_value", ["task_id"])


def downgrade() -> None:
    op.drop_index("ix_task_metadata_value_task_id", table_name="task_metadata_value")
    op.drop_table("task_metadata_value")
    op.drop_index("ix_delivery_statistic_at", table_name="delivery_statistic")
    op.drop_table("delivery_statistic")
    op.drop_index("ix_task_statistic_at", table_name="task_statistic")
    op.drop_table("task_statistic")
    op.drop_table("statistic_position")
