"""Remember how far events were purged: a gap in their numbers does not tell, for a rollback leaves one too."""

import sqlalchemy as sa
from alembic import op

from models.columns import BigKey

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("organization", sa.Column("purged_event", BigKey, nullable=True))
    # What an earlier version purged it did not note. All before the oldest event may have been.
    op.execute("UPDATE organization SET purged_event = (SELECT min(id) - 1 FROM event)")


def downgrade() -> None:
    op.drop_column("organization", "purged_event")
