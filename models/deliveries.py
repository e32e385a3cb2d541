"""Deliveries: one event for one subscription, with its attempts."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import Index, Text, text
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Moment, PublicId
from models.states import DeliveryStatus

_DUE = text("due_at IS NOT NULL")
_REPLAYED = text("replay_id IS NOT NULL")


class Delivery(SQLModel, table=True):
    """One event on its way to one subscription."""

    __tablename__: ClassVar[str] = "delivery"
    __table_args__ = (
        Index("ix_delivery_due", "subscription_id", "due_at", sqlite_where=_DUE, postgresql_where=_DUE),
        Index("ix_delivery_subscription_id", "subscription_id", "id"),
        Index("ix_delivery_replay_id", "replay_id", "status", sqlite_where=_REPLAYED, postgresql_where=_REPLAYED),
        Index("ix_delivery_task_id", "task_id"),
        Index("ix_delivery_event_id", "event_id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    subscription_id: int = Field(foreign_key="subscription.id", sa_type=BigKey)
    event_id: int = Field(foreign_key="event.id", sa_type=BigKey)
    task_id: int | None = Field(default=None, foreign_key="task.id", sa_type=BigKey)
    replay_id: int | None = Field(default=None, foreign_key="replay.id", sa_type=BigKey)
    """The replay that asked for it, for what was sent again on request."""
    status: str = DeliveryStatus.PENDING
    attempt: int = 0
    """How many attempts were begun. A claim counts it up, and only who holds this number may settle."""
    due_at: datetime | None = Field(default=None, sa_type=Moment)
    """When to send it next, or until when whoever sends it has it leased; null when it is settled."""
    leased: bool = False
    schedule_from: int = 0
    """How many attempts were made before the schedule began anew: sending again by hand begins it anew."""
    created_at: datetime = Field(sa_type=Moment)
    settled_at: datetime | None = Field(default=None, sa_type=Moment)


class DeliveryAttempt(SQLModel, table=True):
    """One request to a subscriber and what came of it."""

    __tablename__: ClassVar[str] = "delivery_attempt"
    __table_args__ = (Index("ix_delivery_attempt_delivery_id", "delivery_id", "number", unique=True),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    delivery_id: int = Field(foreign_key="delivery.id", sa_type=BigKey)
    number: int
    started_at: datetime = Field(sa_type=Moment)
    duration_ms: int
    status_code: int | None = None
    """The HTTP status, if there was an answer."""
    error: str | None = None
    """Why there was none."""
    response: str | None = Field(default=None, sa_type=Text)
    """The first 4 KB of the answer's body."""
