"""The first schema: organizations, keys, tasks, events, subscriptions, deliveries, replays, receipts."""

import sqlalchemy as sa
from alembic import op

from models.columns import BigKey, Document, Moment, PublicId

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "organization",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("uid", PublicId(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        sa.UniqueConstraint("uid"),
    )
    op.create_table(
        "idempotency_key",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("resource_id", PublicId(), nullable=False),
        sa.Column("owner", PublicId(), nullable=False),
        sa.Column("lease_until", Moment(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("content_type", sa.String(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("scope"),
    )
    op.create_index("ix_idempotency_key_created_at", "idempotency_key", ["created_at"], unique=False)
    op.create_table(
        "provider_budget",
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("next_at", Moment(), nullable=False),
        sa.Column("paused_until", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("provider"),
    )
    op.create_table(
        "receipt",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("uid", PublicId(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("task_uid", sa.String(), nullable=True),
        sa.Column("provider_task_id", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("received_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uid"),
    )
    op.create_index("ix_receipt_received_at", "receipt", ["received_at"], unique=False)
    op.create_table(
        "api_key",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("uid", PublicId(), nullable=False),
        sa.Column("organization_id", BigKey, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("hint", sa.String(), nullable=False),
        sa.Column("rate_limit", sa.Float(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("revoked_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
        sa.UniqueConstraint("uid"),
    )
    op.create_index("ix_api_key_organization_id", "api_key", ["organization_id"], unique=False)
    op.create_table(
        "run",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("uid", PublicId(), nullable=False),
        sa.Column("organization_id", BigKey, nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("metadata", Document, nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("updated_at", Moment(), nullable=False),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uid"),
    )
    op.create_index("ix_run_organization_id", "run", ["organization_id", "id"], unique=False)
    op.create_index("ix_run_status", "run", ["organization_id", "status", "id"], unique=False)
    op.create_table(
        "subscription",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("uid", PublicId(), nullable=False),
        sa.Column("organization_id", BigKey, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("endpoint_url", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("event_types", Document, nullable=False),
        sa.Column("filters", Document, nullable=True),
        sa.Column("description", sa.String(), nullable=True),
        sa.Column("headers", sa.String(), nullable=True),
        sa.Column("rate_limit", sa.Float(), nullable=True),
        sa.Column("max_in_flight", sa.Integer(), nullable=True),
        sa.Column("ordered", sa.Boolean(), nullable=False),
        sa.Column("secret", sa.String(), nullable=True),
        sa.Column("signature", sa.String(), nullable=False),
        sa.Column("retired_secrets", Document, nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("failing_since", Moment(), nullable=True),
        sa.Column("disabled_reason", sa.String(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("updated_at", Moment(), nullable=False),
        sa.Column("deleted_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uid"),
    )
    op.create_index("ix_subscription_fingerprint", "subscription", ["organization_id", "fingerprint"], unique=True)
    op.create_index("ix_subscription_organization_id", "subscription", ["organization_id", "kind", "id"], unique=False)
    op.create_table(
        "replay",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("uid", PublicId(), nullable=False),
        sa.Column("organization_id", BigKey, nullable=False),
        sa.Column("subscription_id", BigKey, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("until", Moment(), nullable=False),
        sa.Column("event_types", Document, nullable=True),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("cursor", BigKey, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscription.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uid"),
    )
    op.create_index("ix_replay_status", "replay", ["status"], unique=False)
    op.create_index("ix_replay_subscription_id", "replay", ["subscription_id", "id"], unique=False)
    op.create_table(
        "run_step",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("run_id", BigKey, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("spec", Document, nullable=False),
        sa.Column("task_uid", PublicId(), nullable=True),
        sa.Column("result", Document, nullable=True),
        sa.Column("error", Document, nullable=True),
        sa.Column("started_at", Moment(), nullable=True),
        sa.Column("completed_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["run.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_run_step_run_id", "run_step", ["run_id", "position"], unique=True)
    op.create_table(
        "task",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("uid", PublicId(), nullable=False),
        sa.Column("organization_id", BigKey, nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("task_type", sa.String(), nullable=False),
        sa.Column("bulk", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("submission", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("backoff_seconds", sa.Float(), nullable=False),
        sa.Column("provider_task_id", sa.String(), nullable=True),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("revision", sa.String(), nullable=False),
        sa.Column("words", Document, nullable=True),
        sa.Column("input", Document, nullable=True),
        sa.Column("config", Document, nullable=True),
        sa.Column("metadata", Document, nullable=True),
        sa.Column("output", Document, nullable=True),
        sa.Column("error", Document, nullable=True),
        sa.Column("logs", Document, nullable=True),
        sa.Column("detail", Document, nullable=True),
        sa.Column("meta", Document, nullable=True),
        sa.Column("callback_id", BigKey, nullable=True),
        sa.Column("ended_event", PublicId(), nullable=True),
        sa.Column("run_uid", PublicId(), nullable=True),
        sa.Column("step", sa.String(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("updated_at", Moment(), nullable=False),
        sa.Column("submitted_at", Moment(), nullable=True),
        sa.Column("started_at", Moment(), nullable=True),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.Column("heard_at", Moment(), nullable=False),
        sa.Column("due_at", Moment(), nullable=True),
        sa.Column("leased", sa.Boolean(), nullable=False),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["callback_id"],
            ["subscription.id"],
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uid"),
    )
    op.create_index(
        "ix_task_callback_id",
        "task",
        ["callback_id"],
        unique=False,
        sqlite_where=sa.text("callback_id IS NOT NULL"),
        postgresql_where=sa.text("callback_id IS NOT NULL"),
    )
    op.create_index(
        "ix_task_due",
        "task",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("due_at IS NOT NULL AND submission <> 'waiting'"),
        postgresql_where=sa.text("due_at IS NOT NULL AND submission <> 'waiting'"),
    )
    op.create_index(
        "ix_task_unsent",
        "task",
        ["bulk", "organization_id", "due_at"],
        unique=False,
        sqlite_where=sa.text("due_at IS NOT NULL AND submission = 'waiting'"),
        postgresql_where=sa.text("due_at IS NOT NULL AND submission = 'waiting'"),
    )
    op.create_index("ix_task_model", "task", ["organization_id", "model", "id"], unique=False)
    op.create_index(
        "ix_task_provider_task_id",
        "task",
        ["provider", "provider_task_id"],
        unique=True,
        sqlite_where=sa.text("provider_task_id IS NOT NULL"),
        postgresql_where=sa.text("provider_task_id IS NOT NULL"),
    )
    op.create_index(
        "ix_task_run_uid",
        "task",
        ["run_uid"],
        unique=False,
        sqlite_where=sa.text("run_uid IS NOT NULL"),
        postgresql_where=sa.text("run_uid IS NOT NULL"),
    )
    op.create_index("ix_task_status", "task", ["organization_id", "status", "id"], unique=False)
    op.create_index("ix_task_status_model", "task", ["organization_id", "status", "model", "id"], unique=False)
    op.create_table(
        "task_attempt",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("task_id", BigKey, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("provider_task_id", sa.String(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("error", Document, nullable=True),
        sa.Column("submitted_at", Moment(), nullable=True),
        sa.Column("started_at", Moment(), nullable=True),
        sa.Column("ended_at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_id"],
            ["task.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_task_attempt_provider_task_id",
        "task_attempt",
        ["provider", "provider_task_id"],
        unique=False,
        sqlite_where=sa.text("provider_task_id IS NOT NULL"),
        postgresql_where=sa.text("provider_task_id IS NOT NULL"),
    )
    op.create_index("ix_task_attempt_task_id", "task_attempt", ["task_id", "number"], unique=True)
    op.create_table(
        "event",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("uid", PublicId(), nullable=False),
        sa.Column("organization_id", BigKey, nullable=False),
        sa.Column("task_id", BigKey, nullable=True),
        sa.Column("run_uid", PublicId(), nullable=True),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("snapshot", Document, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
        ),
        sa.ForeignKeyConstraint(
            ["task_id"],
            ["task.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uid"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_organization_id", "event", ["organization_id", "id"], unique=False)
    op.create_index(
        "ix_event_run_uid",
        "event",
        ["run_uid", "id"],
        unique=False,
        sqlite_where=sa.text("run_uid IS NOT NULL"),
        postgresql_where=sa.text("run_uid IS NOT NULL"),
    )
    op.create_index("ix_event_task_id", "event", ["task_id", "id"], unique=False)
    op.create_table(
        "delivery",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("uid", PublicId(), nullable=False),
        sa.Column("organization_id", BigKey, nullable=False),
        sa.Column("subscription_id", BigKey, nullable=False),
        sa.Column("event_id", BigKey, nullable=False),
        sa.Column("task_id", BigKey, nullable=True),
        sa.Column("replay_id", BigKey, nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("due_at", Moment(), nullable=True),
        sa.Column("leased", sa.Boolean(), nullable=False),
        sa.Column("schedule_from", sa.Integer(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("settled_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(
            ["event_id"],
            ["event.id"],
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organization.id"],
        ),
        sa.ForeignKeyConstraint(
            ["replay_id"],
            ["replay.id"],
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscription.id"],
        ),
        sa.ForeignKeyConstraint(
            ["task_id"],
            ["task.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uid"),
    )
    op.create_index(
        "ix_delivery_due",
        "delivery",
        ["subscription_id", "due_at"],
        unique=False,
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index("ix_delivery_event_id", "delivery", ["event_id"], unique=False)
    op.create_index(
        "ix_delivery_replay_id",
        "delivery",
        ["replay_id", "status"],
        unique=False,
        sqlite_where=sa.text("replay_id IS NOT NULL"),
        postgresql_where=sa.text("replay_id IS NOT NULL"),
    )
    op.create_index("ix_delivery_subscription_id", "delivery", ["subscription_id", "id"], unique=False)
    op.create_index("ix_delivery_task_id", "delivery", ["task_id"], unique=False)
    op.create_table(
        "delivery_attempt",
        sa.Column("id", BigKey, nullable=False),
        sa.Column("delivery_id", BigKey, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", Moment(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("response", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["delivery.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_delivery_attempt_delivery_id", "delivery_attempt", ["delivery_id", "number"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_delivery_attempt_delivery_id", table_name="delivery_attempt")
    op.drop_table("delivery_attempt")
    op.drop_index("ix_delivery_task_id", table_name="delivery")
    op.drop_index("ix_delivery_subscription_id", table_name="delivery")
    op.drop_index(
        "ix_delivery_replay_id",
        table_name="delivery",
        sqlite_where=sa.text("replay_id IS NOT NULL"),
        postgresql_where=sa.text("replay_id IS NOT NULL"),
    )
    op.drop_index("ix_delivery_event_id", table_name="delivery")
    op.drop_index(
        "ix_delivery_due",
        table_name="delivery",
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.drop_table("delivery")
    op.drop_index("ix_event_task_id", table_name="event")
    op.drop_index(
        "ix_event_run_uid",
        table_name="event",
        sqlite_where=sa.text("run_uid IS NOT NULL"),
        postgresql_where=sa.text("run_uid IS NOT NULL"),
    )
    op.drop_index("ix_event_organization_id", table_name="event")
    op.drop_table("event")
    op.drop_index("ix_task_attempt_task_id", table_name="task_attempt")
    op.drop_index(
        "ix_task_attempt_provider_task_id",
        table_name="task_attempt",
        sqlite_where=sa.text("provider_task_id IS NOT NULL"),
        postgresql_where=sa.text("provider_task_id IS NOT NULL"),
    )
    op.drop_table("task_attempt")
    op.drop_index(
        "ix_task_unsent",
        table_name="task",
        sqlite_where=sa.text("due_at IS NOT NULL AND submission = 'waiting'"),
        postgresql_where=sa.text("due_at IS NOT NULL AND submission = 'waiting'"),
    )
    op.drop_index("ix_task_status_model", table_name="task")
    op.drop_index("ix_task_status", table_name="task")
    op.drop_index(
        "ix_task_run_uid",
        table_name="task",
        sqlite_where=sa.text("run_uid IS NOT NULL"),
        postgresql_where=sa.text("run_uid IS NOT NULL"),
    )
    op.drop_index(
        "ix_task_provider_task_id",
        table_name="task",
        sqlite_where=sa.text("provider_task_id IS NOT NULL"),
        postgresql_where=sa.text("provider_task_id IS NOT NULL"),
    )
    op.drop_index("ix_task_model", table_name="task")
    op.drop_index(
        "ix_task_due",
        table_name="task",
        sqlite_where=sa.text("due_at IS NOT NULL AND submission <> 'waiting'"),
        postgresql_where=sa.text("due_at IS NOT NULL AND submission <> 'waiting'"),
    )
    op.drop_index(
        "ix_task_callback_id",
        table_name="task",
        sqlite_where=sa.text("callback_id IS NOT NULL"),
        postgresql_where=sa.text("callback_id IS NOT NULL"),
    )
    op.drop_table("task")
    op.drop_index("ix_run_step_run_id", table_name="run_step")
    op.drop_table("run_step")
    op.drop_index("ix_replay_subscription_id", table_name="replay")
    op.drop_index("ix_replay_status", table_name="replay")
    op.drop_table("replay")
    op.drop_index("ix_subscription_organization_id", table_name="subscription")
    op.drop_index("ix_subscription_fingerprint", table_name="subscription")
    op.drop_table("subscription")
    op.drop_index("ix_run_status", table_name="run")
    op.drop_index("ix_run_organization_id", table_name="run")
    op.drop_table("run")
    op.drop_index("ix_api_key_organization_id", table_name="api_key")
    op.drop_table("api_key")
    op.drop_index("ix_receipt_received_at", table_name="receipt")
    op.drop_table("receipt")
    op.drop_table("provider_budget")
    op.drop_index("ix_idempotency_key_created_at", table_name="idempotency_key")
    op.drop_table("idempotency_key")
    op.drop_table("organization")
