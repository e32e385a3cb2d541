"""Find rare tasks, deliveries, events and audit entries in large tables by indexes.

Those of deliveries and events are partial: what a webhook writes is in neither of them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None
readable_from = "0007"

_IS_UNDELIVERED = sa.text("due_at IS NULL AND status <> 'delivered'")
_IS_RARE = sa.text(
    "type <> 'task.created' AND type <> 'task.submitted' AND type <> 'task.updated' AND type <> 'task.completed'"
)
_INDEXES = (
    ("ix_task_task_type", "task", ["organization_id", "task_type", "id"], None),
    ("ix_delivery_undelivered", "delivery", ["organization_id", "status", "id"], _IS_UNDELIVERED),
    ("ix_delivery_undelivered_of_one", "delivery", ["subscription_id", "status", "id"], _IS_UNDELIVERED),
    ("ix_event_rare_type", "event", ["organization_id", "type", "id"], _IS_RARE),
    ("ix_audit_entry_action", "audit_entry", ["organization_id", "action", "id"], None),
    ("ix_audit_entry_target", "audit_entry", ["organization_id", "target", "id"], None),
    ("ix_audit_entry_api_key_id", "audit_entry", ["organization_id", "api_key_id", "id"], None),
)


def upgrade() -> None:
    for name, table, columns, condition in _INDEXES:
        op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)


def downgrade() -> None:
    for name, table, _, _ in reversed(_INDEXES):
        op.drop_index(name, table_name=table)
