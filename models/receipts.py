"""Receipts: inbound webhooks that were authentic and yet not applied."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import Index, Text
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Moment, PublicId


class Receipt(SQLModel, table=True):
    """An authentic webhook that changed nothing, kept with its body for a person to see."""

    __tablename__: ClassVar[str] = "receipt"
    __table_args__ = (Index("ix_receipt_received_at", "received_at"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    provider: str
    task_uid: str | None = None
    """The task that the address named, as text: it may never have been one."""
    provider_task_id: str | None = None
    reason: str
    message: str
    body: str = Field(sa_type=Text)
    """The body as it came, without the echoed secret."""
    received_at: datetime = Field(sa_type=Moment)
