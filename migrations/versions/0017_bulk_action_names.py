"""Keep with a bulk action who asked for it."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None
readable_from = "0007"


def upgrade() -> None:
    op.add_column("bulk_action", sa.Column("requested_by", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("bulk_action", "requested_by")
