"""Remember by their fingerprints which master keys are in use, so that a start notices one that is missing."""

import sqlalchemy as sa
from alembic import op

from models.columns import BigKey, Moment

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
readable_from = "0007"


def upgrade() -> None:
    op.create_table(
        "master_key",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("newest_since", Moment(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("fingerprint"),
    )


def downgrade() -> None:
    op.drop_table("master_key")
