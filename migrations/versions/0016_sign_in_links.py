"""Keep which one-time links to the dashboard were used."""

import sqlalchemy as sa
from alembic import op

from models.columns import Moment

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
readable_from = "0007"


def upgrade() -> None:
    op.create_table(
        "sign_in_link",
        sa.Column("nonce", sa.String(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("nonce"),
    )
    op.create_index("ix_sign_in_link_expires_at", "sign_in_link", ["expires_at"])


def downgrade() -> None:
    op.drop_index("ix_sign_in_link_expires_at", table_name="sign_in_link")
    op.drop_table("sign_in_link")
