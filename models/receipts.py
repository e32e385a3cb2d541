"""Receipts: inbound webhooks that were authentic and yet not applied."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import Index, Text
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Moment, PublicId


class Receipt(SQLModel, table=True):
    """An authentic inbound webhook that changed nothing, kept with its body so that a person can inspect it.

    The row is inserted when the webhook is received, never changes, and is purged when it is older than the retention.
    """

    __tablename__: ClassVar[str] = "receipt"
    __table_args__ = (
        Index("ix_receipt_received_at", "received_at"),
        Index("ix_receipt_organization_id", "organization_id", "received_at", "id"),
        Index("ix_receipt_reason", "organization_id", "reason", "received_at", "id"),
        Index("ix_receipt_provider", "organization_id", "provider", "received_at", "id"),
        Index("ix_receipt_task_uid", "organization_id", "task_uid", "received_at", "id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    organization_id: int | None = Field(default=None, sa_type=BigKey)
    """Whose it is: that of its task, else `default`. Null in rows of earlier versions until the clean-up finds it."""
    provider: str
    task_uid: str | None = None
    """The task id in the webhook's URL, or that of the task which has the provider's id. Text without a foreign key:
    such a task may never have existed."""
    provider_task_id: str | None = None
    """The provider's id in the body; null if the body has none, or could not be read."""
    reason: str
    """One of `models.states.ReceiptReason`."""
    message: str
    """The reason in words, for a person."""
    body: str = Field(sa_type=Text)
    """The body as received, without the secret that the provider echoes."""
    received_at: datetime = Field(sa_type=Moment)
