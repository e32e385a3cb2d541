"""Rename columns of tasks as the code and the guides name them."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Both databases rename a column in the catalogue alone: it takes no longer for a large table.
    op.execute("ALTER TABLE task RENAME COLUMN looks TO poll_count")
    op.execute("ALTER TABLE task RENAME COLUMN heard_at TO last_update_at")


def downgrade() -> None:
    op.execute("ALTER TABLE task RENAME COLUMN poll_count TO looks")
    op.execute("ALTER TABLE task RENAME COLUMN last_update_at TO heard_at")
