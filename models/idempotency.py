"""Idempotency keys: requests that may be repeated, and their responses."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import Index, Text
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Moment, PublicId


class IdempotencyKey(SQLModel, table=True):
    """One request under a client's `Idempotency-Key`: first which process does its work, later its response.

    The row is inserted by the first request, before its work begins. It is claimed by another process if the lease ends
    without a response, and starts over with the first request that comes 24 hours after `created_at`. It is purged when
    it is 24 hours old.
    """

    __tablename__: ClassVar[str] = "idempotency_key"
    __table_args__ = (
        Index("ix_idempotency_key_created_at", "created_at"),
        Index("ix_idempotency_key_organization_id", "organization_id", "created_at"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    scope: str = Field(unique=True)
    """SHA-256, in hex, of the organization, the endpoint and the client's key."""
    organization_id: int | None = Field(default=None, sa_type=BigKey)
    """Whose request it is, so that the keys of each organization can be counted; null for a key of an earlier
    version."""
    body: str
    """SHA-256, in hex, of the request's body; another body under the same key is refused."""
    resource_id: str = Field(sa_type=PublicId)
    """The id of what the request creates. It is chosen before the work begins, so that a process which takes the work
    over finds what the first one created."""
    found_state: str | None = None
    """For a request that changes what exists already (a retry): the state that it found before the work began, so that
    a repetition can tell whether the work was done. Null for requests that create something."""
    owner: str = Field(sa_type=PublicId)
    """The process that does the work, or did it last."""
    lease_until: datetime = Field(sa_type=Moment)
    """Until when no other process may take the work over. Renewed while the work goes on; without meaning once there
    is a response."""
    status: int | None = None
    """The response's HTTP status; null until there is a response to keep."""
    content_type: str | None = None
    """The response's `Content-Type`; null until there is a response to keep."""
    answer: str | None = Field(default=None, sa_type=Text)
    """The response's body, encrypted, for it may show a secret that is shown only once; null until there is one."""
    created_at: datetime = Field(sa_type=Moment)
    """When the key was first used, or used again after 24 hours."""
