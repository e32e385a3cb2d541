"""Keep accounts at providers, and which of them a task uses."""

import sqlalchemy as sa
from alembic import op

from models.columns import BigKey, Document, Moment, PublicId

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None
readable_from = "0007"

_IS_EVERYONES = sa.text("organization_id IS NULL AND removed_at IS NULL")
_IS_THERE = sa.text("removed_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "provider_account",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("uid", PublicId(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("organization_id", BigKey, nullable=True),
        sa.Column("credentials", sa.Text(), nullable=False),
        sa.Column("hints", Document, nullable=True),
        sa.Column("base_url", sa.String(), nullable=True),
        sa.Column("calls_per_second", sa.Float(), nullable=True),
        sa.Column("concurrency", sa.Integer(), nullable=True),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("updated_at", Moment(), nullable=False),
        sa.Column("removed_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uid"),
    )
    op.create_index("ix_provider_account_updated_at", "provider_account", ["updated_at"])
    op.create_index(
        "ix_provider_account_name",
        "provider_account",
        ["provider", "name"],
        unique=True,
        sqlite_where=_IS_EVERYONES,
        postgresql_where=_IS_EVERYONES,
    )
    op.create_index(
        "ix_provider_account_own_name",
        "provider_account",
        ["organization_id", "provider", "name"],
        unique=True,
        sqlite_where=_IS_THERE,
        postgresql_where=_IS_THERE,
    )
    op.add_column("task", sa.Column("account_id", BigKey, nullable=True))


def downgrade() -> None:
    op.drop_column("task", "account_id")
    op.drop_index("ix_provider_account_own_name", table_name="provider_account")
    op.drop_index("ix_provider_account_name", table_name="provider_account")
    op.drop_index("ix_provider_account_updated_at", table_name="provider_account")
    op.drop_table("provider_account")
