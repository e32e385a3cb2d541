"""Keep facts of the installation: which versions may run on this schema, when the last backup was made."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
readable_from = "0007"


def upgrade() -> None:
    op.create_table(
        "installation_fact",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def downgrade() -> None:
    op.drop_table("installation_fact")
