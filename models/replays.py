"""Replays: what is sent to one subscription again, in the background."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId
from models.states import ReplayStatus


class Replay(SQLModel, table=True):
    """One request to send again; its progress is in the row, so that a restart goes on where it was."""

    __tablename__: ClassVar[str] = "replay"
    __table_args__ = (Index("ix_replay_subscription_id", "subscription_id", "id"), Index("ix_replay_status", "status"))

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    subscription_id: int = Field(foreign_key="subscription.id", sa_type=BigKey)
    kind: str
    status: str = ReplayStatus.RUNNING
    since: datetime = Field(sa_type=Moment)
    until: datetime = Field(sa_type=Moment)
    event_types: Any = Field(default=None, sa_type=Document, nullable=True)
    total: int = 0
    """How many deliveries it will send, as counted when it was asked for."""
    sent: int = 0
    """How many were put on their way so far."""
    cursor: int = Field(default=0, sa_type=BigKey)
    """The key of the last event (or delivery, for `recover`) that was dealt with."""
    created_at: datetime = Field(sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
