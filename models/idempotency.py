"""Idempotency keys: requests that may come again, and how they were answered."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import Index, Text
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Moment, PublicId


class IdempotencyKey(SQLModel, table=True):
    """One request under a client's `Idempotency-Key`: who does its work, and later its answer."""

    __tablename__: ClassVar[str] = "idempotency_key"
    __table_args__ = (Index("ix_idempotency_key_created_at", "created_at"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    scope: str = Field(unique=True)
    """SHA-256, in hex, of the organization, the endpoint and the client's key."""
    body: str
    """SHA-256, in hex, of the request's body."""
    resource_id: str = Field(sa_type=PublicId)
    """The id of what the request makes, decided before it is made: so a later request finds it."""
    owner: str = Field(sa_type=PublicId)
    """The process that does the work, or did it last."""
    lease_until: datetime = Field(sa_type=Moment)
    """Until when no other process may take the work over."""
    status: int | None = None
    """The answer's HTTP status; null until there is an answer."""
    content_type: str | None = None
    answer: str | None = Field(default=None, sa_type=Text)
    """The answer's body, encrypted: it may show a secret that is shown once."""
    created_at: datetime = Field(sa_type=Moment)
