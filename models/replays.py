"""Replays: requests to send deliveries of one subscription again, in the background."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId
from models.states import ReplayStatus


class Replay(SQLModel, table=True):
    """One request to send again what was given up (`recover`) or what matches (`replay`).

    The row is inserted by the request, and each batch moves its cursor in the batch's own transaction, so that any
    process can continue after a restart. It ends with the last batch, or when it is cancelled or its subscription is
    removed. It is purged when it ended longer ago than the retention and no delivery names it any more.
    """

    __tablename__: ClassVar[str] = "replay"
    __table_args__ = (Index("ix_replay_subscription_id", "subscription_id", "id"), Index("ix_replay_status", "status"))

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    """The id that the API shows: a UUIDv7."""
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    subscription_id: int = Field(foreign_key="subscription.id", sa_type=BigKey)
    kind: str
    """One of `models.states.ReplayKind`."""
    status: str = ReplayStatus.RUNNING
    """`running` until the last batch is inserted (`done`). `cancelled` also for one that was done when its pending
    deliveries were cancelled."""
    since: datetime = Field(sa_type=Moment)
    """The start of the range, inclusive: of events' `created_at`, or of deliveries' `settled_at` for `recover`."""
    until: datetime = Field(sa_type=Moment)
    """The end of the range, inclusive; at the latest the time of the request."""
    event_types: Any = Field(default=None, sa_type=Document, nullable=True)
    """The event types to send, as a list; null for `recover`, which takes any type."""
    total: int = 0
    """How many deliveries it will send, as counted when it was requested."""
    sent: int = 0
    """How many deliveries its batches have inserted, or made pending again, by now."""
    cursor: int = Field(default=0, sa_type=BigKey)
    """The key of the last event (or delivery, for `recover`) that a batch has passed; 0 before the first batch."""
    created_at: datetime = Field(sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
    """When the last batch was inserted, or when it was cancelled while running; null while it runs."""
