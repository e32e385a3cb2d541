"""Subscriptions: callback URLs with their filter, format and secret. The API calls them webhooks."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId
from models.states import DeliveryFormat, SignatureScheme, SubscriptionKind


class Subscription(SQLModel, table=True):
    """Somebody who is told."""

    __tablename__: ClassVar[str] = "subscription"
    __table_args__ = (
        Index("ix_subscription_organization_id", "organization_id", "kind", "id"),
        Index("ix_subscription_fingerprint", "organization_id", "fingerprint", unique=True),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    kind: str = SubscriptionKind.REGISTERED
    endpoint_url: str
    format: str = DeliveryFormat.STANDARD
    event_types: Any = Field(sa_type=Document)
    """A list of event types."""
    filters: Any = Field(default=None, sa_type=Document, nullable=True)
    """Which tasks: `model`, `task_type`, `run_id` (lists of what is wanted) and `metadata` (an object)."""
    description: str | None = None
    headers: str | None = None
    """The user's own headers, as an encrypted JSON object."""
    rate_limit: float | None = None
    """Deliveries a second, at most."""
    max_in_flight: int | None = None
    ordered: bool = False
    """Whether a task's next event waits until the one before it was delivered or given up."""
    secret: str | None = None
    """Encrypted with a key derived from the master key."""
    signature: str = SignatureScheme.SYMMETRIC
    retired_secrets: Any = Field(default=None, sa_type=Document, nullable=True)
    """Secrets that a rotation replaced and that still sign: a list of `secret` (encrypted) and `until`."""
    fingerprint: str | None = None
    """For a client's own callback: a keyed hash of URL and secret, so that each pair has one row."""
    is_active: bool = True
    failing_since: datetime | None = Field(default=None, sa_type=Moment)
    """The first failure since the last success."""
    disabled_reason: str | None = None
    created_at: datetime = Field(sa_type=Moment)
    updated_at: datetime = Field(sa_type=Moment)
    deleted_at: datetime | None = Field(default=None, sa_type=Moment)
