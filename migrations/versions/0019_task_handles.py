"""Keep what a provider's adapter needs besides the id to ask for a task again."""

import sqlalchemy as sa
from alembic import op

from models.columns import Document

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None
readable_from = "0007"


def upgrade() -> None:
    op.add_column("task", sa.Column("handle", Document, nullable=True))


def downgrade() -> None:
    op.drop_column("task", "handle")
