"""Subscriptions: callback URLs with their filter, format and secret. The API calls them webhooks."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId
from models.states import DeliveryFormat, SignatureScheme, SubscriptionKind


class Subscription(SQLModel, table=True):
    """A callback URL, and which events it receives.

    A registered one is inserted by `POST /api/v1/webhooks`, changed and removed by its owner, and switched off by
    Ringback when its endpoint is gone or keeps failing. A client's own callback is inserted by the first task whose
    `webhook_config` names this URL and secret, and shared by later tasks. A removed registered one, and a callback
    older than the retention, is purged when no task, delivery or replay names it any more.
    """

    __tablename__: ClassVar[str] = "subscription"
    __table_args__ = (
        Index("ix_subscription_organization_id", "organization_id", "kind", "id"),
        Index("ix_subscription_fingerprint", "organization_id", "fingerprint", unique=True),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    """The id that the API shows for a registered one: a UUIDv7."""
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    kind: str = SubscriptionKind.REGISTERED
    endpoint_url: str
    format: str = DeliveryFormat.STANDARD
    event_types: Any = Field(sa_type=Document)
    """The event types that it receives, as a list."""
    filters: Any = Field(default=None, sa_type=Document, nullable=True)
    """Which tasks it receives events of: `model`, `task_type`, `run_id` (lists of what is wanted) and `metadata` (an
    object). Null for all."""
    description: str | None = None
    headers: str | None = None
    """The owner's additional request headers, as an encrypted JSON object; null if there are none."""
    rate_limit: float | None = None
    """The most deliveries per second; null for no limit of its own."""
    max_in_flight: int | None = None
    """The most deliveries at the same time; null for the default."""
    ordered: bool = False
    """Whether the next event of a task waits until the one before it was delivered or given up."""
    secret: str | None = None
    """The signing secret, encrypted with a key derived from the master key. Null only for a callback without one."""
    signature: str = SignatureScheme.SYMMETRIC
    retired_secrets: Any = Field(default=None, sa_type=Document, nullable=True)
    """Secrets that a rotation replaced and that still sign, newest first: a list of `secret` (encrypted) and `until`.
    Null if there are none; also after a change of the secret without a rotation, which takes effect at once."""
    fingerprint: str | None = None
    """For a client's own callback: a keyed hash of URL and secret, so that each pair has one row. Null for a
    registered one."""
    is_active: bool = True
    """Whether it receives deliveries. False while it is switched off, by its owner or by Ringback: its pending
    deliveries are kept without a `due_at`, and due again when it is switched on."""
    failing_since: datetime | None = Field(default=None, sa_type=Moment)
    """The first failure since the last success; null after a success, and when it is switched on."""
    disabled_reason: str | None = None
    """Why Ringback switched it off (`models.states.DisabledReason`); null otherwise, and when it is switched on."""
    created_at: datetime = Field(sa_type=Moment)
    updated_at: datetime = Field(sa_type=Moment)
    """When it was last changed, rotated, switched on or off, or removed."""
    deleted_at: datetime | None = Field(default=None, sa_type=Moment)
    """When it was removed; null until then. Its row stays for the history of its deliveries."""
