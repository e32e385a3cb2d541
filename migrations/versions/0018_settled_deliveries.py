"""Find the deliveries that were given up or cancelled, and those that wait for their webhook, among millions.

None of the rows that are sent and accepted ever enters these indexes: their writes cost what they did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None
readable_from = "0007"

_IS_AT_REST = sa.text("due_at IS NULL AND status <> 'delivered'")
_INDEXES = {
    "ix_delivery_at_rest": ["organization_id", "status", "id"],
    "ix_delivery_at_rest_of_one": ["subscription_id", "status", "id"],
}


def upgrade() -> None:
    for name, columns in _INDEXES.items():
        op.create_index(name, "delivery", columns, sqlite_where=_IS_AT_REST, postgresql_where=_IS_AT_REST)


def downgrade() -> None:
    for name in _INDEXES:
        op.drop_index(name, table_name="delivery")
