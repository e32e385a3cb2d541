"""Keep what organizations may use and do use, when keys expire, and who changed what."""

import sqlalchemy as sa
from alembic import op

from models.columns import BigKey, Document, Moment, PublicId

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("organization", sa.Column("limits", Document, nullable=True))
    op.add_column(
        "organization", sa.Column("owns_provider_account", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    # Until now every organization could do what only the account's owner may do from now on.
    op.execute("UPDATE organization SET owns_provider_account = true")
    op.add_column("api_key", sa.Column("expires_at", Moment(), nullable=True))
    op.add_column("api_key", sa.Column("last_used_at", Moment(), nullable=True))
    # With a constant default, both databases add a column in the catalogue alone: no row is rewritten.
    op.add_column("task", sa.Column("stored_bytes", BigKey, server_default="0", nullable=False))
    op.add_column("idempotency_key", sa.Column("organization_id", BigKey, nullable=True))
    op.create_index("ix_idempotency_key_organization_id", "idempotency_key", ["organization_id", "created_at"])
    op.create_table(
        "audit_entry",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("uid", PublicId(), nullable=False),
        sa.Column("organization_id", BigKey, nullable=False),
        sa.Column("api_key_id", BigKey, nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=True),
        sa.Column("before", Document, nullable=True),
        sa.Column("after", Document, nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_key.id"]),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uid"),
    )
    op.create_index("ix_audit_entry_organization_id", "audit_entry", ["organization_id", "id"])
    op.create_index("ix_audit_entry_created_at", "audit_entry", ["created_at"])
    op.create_table(
        "limit_use",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("process", PublicId(), nullable=False),
        sa.Column("wanted", sa.Float(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("name", "process"),
    )


def downgrade() -> None:
    op.drop_table("limit_use")
    op.drop_index("ix_audit_entry_created_at", table_name="audit_entry")
    op.drop_index("ix_audit_entry_organization_id", table_name="audit_entry")
    op.drop_table("audit_entry")
    op.drop_index("ix_idempotency_key_organization_id", table_name="idempotency_key")
    op.drop_column("idempotency_key", "organization_id")
    op.drop_column("task", "stored_bytes")
    op.drop_column("api_key", "last_used_at")
    op.drop_column("api_key", "expires_at")
    op.drop_column("organization", "owns_provider_account")
    op.drop_column("organization", "limits")
