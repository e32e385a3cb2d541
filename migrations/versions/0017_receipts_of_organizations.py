"""Keep whose a receipt is, and find the receipts of an organization, of a reason and of a task.

Earlier rows get their organization from the clean-up (`receiver.workers.cleanup`), so that no table is rewritten here.
"""

import sqlalchemy as sa
from alembic import op

from models.columns import BigKey

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None
readable_from = "0007"


def upgrade() -> None:
    op.add_column("receipt", sa.Column("organization_id", BigKey, nullable=True))
    # Receipts are few: what was authentic and could not be applied. An index of a million takes a second or two.
    op.create_index("ix_receipt_organization_id", "receipt", ["organization_id", "received_at", "id"])
    op.create_index("ix_receipt_reason", "receipt", ["organization_id", "reason", "received_at", "id"])
    op.create_index("ix_receipt_provider", "receipt", ["organization_id", "provider", "received_at", "id"])
    op.create_index("ix_receipt_task_uid", "receipt", ["organization_id", "task_uid", "received_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_receipt_task_uid", table_name="receipt")
    op.drop_index("ix_receipt_provider", table_name="receipt")
    op.drop_index("ix_receipt_reason", table_name="receipt")
    op.drop_index("ix_receipt_organization_id", table_name="receipt")
    op.drop_column("receipt", "organization_id")
