"""Keep which events' deliveries are still to be written; let organizations take turns to be polled."""

import sqlalchemy as sa
from alembic import op

from models.columns import BigKey

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_IS_SENT_AND_DUE = sa.text("due_at IS NOT NULL AND submission <> 'waiting'")


def upgrade() -> None:
    op.create_table(
        "fan_out",
        sa.Column("event_id", BigKey, nullable=False),
        sa.Column("organization_id", BigKey, nullable=False),
        sa.Column("task_id", BigKey, nullable=True),
        sa.Column("after_subscription_id", BigKey, nullable=False),
        sa.Column("until_subscription_id", BigKey, nullable=False),
        sa.ForeignKeyConstraint(["event_id"], ["event.id"]),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"]),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"]),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_index("ix_fan_out_organization_id", "fan_out", ["organization_id", "event_id"])
    op.create_index("ix_fan_out_task_id", "fan_out", ["task_id"])
    _index_due_tasks_by("organization_id", "due_at")


def downgrade() -> None:
    _index_due_tasks_by("due_at")
    op.drop_index("ix_fan_out_task_id", table_name="fan_out")
    op.drop_index("ix_fan_out_organization_id", table_name="fan_out")
    op.drop_table("fan_out")


def _index_due_tasks_by(*columns: str) -> None:
    # It reads the whole table once; what it indexes are the few tasks that have not ended.
    op.drop_index("ix_task_due", table_name="task")
    op.create_index("ix_task_due", "task", columns, sqlite_where=_IS_SENT_AND_DUE, postgresql_where=_IS_SENT_AND_DUE)
