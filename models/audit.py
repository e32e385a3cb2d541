"""The audit log: who changed what."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId


class AuditEntry(SQLModel, table=True):
    """One change that a person or program made through the API or a command, without any secret.

    The row is inserted in the transaction of the change itself, never changes, and is purged when it is older than
    `RINGBACK_AUDIT_DAYS`.
    """

    __tablename__: ClassVar[str] = "audit_entry"
    __table_args__ = (
        Index("ix_audit_entry_organization_id", "organization_id", "id"),
        Index("ix_audit_entry_created_at", "created_at"),
        Index("ix_audit_entry_action", "organization_id", "action", "id"),
        Index("ix_audit_entry_target", "organization_id", "target", "id"),
        Index("ix_audit_entry_api_key_id", "organization_id", "api_key_id", "id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    """The id that the API shows: a UUIDv7."""
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    """The organization whose thing was changed."""
    api_key_id: int | None = Field(default=None, foreign_key="api_key.id", sa_type=BigKey)
    """The key of the request; null for a change by a setting or by the service itself."""
    actor: str
    """Who it was, for a person: the key's name and first characters, or what else made the change."""
    address: str | None = None
    """The client's address; null without a request."""
    request_id: str | None = None
    action: str
    """What was done, as `<thing>.<verb>`, such as `webhook.change`."""
    target: str | None = None
    """The id of what was changed."""
    before: Any = Field(default=None, sa_type=Document, nullable=True)
    """The changed fields as they were, without secrets; null for something new."""
    after: Any = Field(default=None, sa_type=Document, nullable=True)
    """The changed fields as they are since then, without secrets; null for something removed."""
    created_at: datetime = Field(sa_type=Moment)
