"""Deliveries: one event for one subscription, with its attempts."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import Index, Text, text
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Moment, PublicId
from models.states import DeliveryStatus

_IS_DUE = text("due_at IS NOT NULL")
_IS_UNDELIVERED = text("due_at IS NULL AND status <> 'delivered'")
"""Given up, cancelled, or pending for a subscription that is off: no row on its way to being delivered is."""
_IS_REPLAYED = text("replay_id IS NOT NULL")


class Delivery(SQLModel, table=True):
    """One event to be sent to one subscription.

    The row is inserted in the transaction of its event, of its event's fan-out, or of a replay's batch, one for each
    subscription that matches. It is settled when the subscriber has it, when every attempt failed, or when it is
    cancelled; a retry or a `recover` makes a settled one pending again. It is purged with its task, with its run, or
    with its event where that belongs to neither; never while it is pending.
    """

    __tablename__: ClassVar[str] = "delivery"
    __table_args__ = (
        Index("ix_delivery_due", "subscription_id", "due_at", sqlite_where=_IS_DUE, postgresql_where=_IS_DUE),
        Index("ix_delivery_subscription_id", "subscription_id", "id"),
        Index("ix_delivery_replay_id", "replay_id", "status", sqlite_where=_IS_REPLAYED, postgresql_where=_IS_REPLAYED),
        # The few that were given up or cancelled, or wait for their subscription to be switched on. What is sent at
        # once is never in these two.
        Index(
            "ix_delivery_undelivered",
            "organization_id",
            "status",
            "id",
            sqlite_where=_IS_UNDELIVERED,
            postgresql_where=_IS_UNDELIVERED,
        ),
        Index(
            "ix_delivery_undelivered_of_one",
            "subscription_id",
            "status",
            "id",
            sqlite_where=_IS_UNDELIVERED,
            postgresql_where=_IS_UNDELIVERED,
        ),
        Index("ix_delivery_task_id", "task_id"),
        Index("ix_delivery_event_id", "event_id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    """The id that the API shows: a UUIDv7."""
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    subscription_id: int = Field(foreign_key="subscription.id", sa_type=BigKey)
    event_id: int = Field(foreign_key="event.id", sa_type=BigKey)
    task_id: int | None = Field(default=None, foreign_key="task.id", sa_type=BigKey)
    """The event's task, copied so that an ordered subscription and a purge find it here; null for an event of no
    task."""
    replay_id: int | None = Field(default=None, foreign_key="replay.id", sa_type=BigKey)
    """The replay that inserted the delivery, or the last `recover` that sent it again; null for any other."""
    status: str = DeliveryStatus.PENDING
    attempt: int = 0
    """How many attempts were begun. A claim adds 1, and only the process that holds this number may settle the
    attempt; giving a claim back unsent takes the 1 away. A delivery that is inserted already leased begins at 1."""
    due_at: datetime | None = Field(default=None, sa_type=Moment)
    """When to send it next, or when its lease ends if it is `leased`. Null when it is settled, and while its
    subscription is switched off."""
    leased: bool = False
    """Whether a process is sending it. Set by a claim, cleared when the attempt is settled or given back. A
    request that cancels the delivery leaves it as it is: it then tells that an attempt may still be in flight."""
    schedule_from: int = 0
    """The value of `attempt` at which the present retry schedule began: 0, until the delivery is sent again on
    request, which starts the schedule from the beginning."""
    created_at: datetime = Field(sa_type=Moment)
    settled_at: datetime | None = Field(default=None, sa_type=Moment)
    """When it stopped being pending; null while it is, also after it was sent again."""


class DeliveryAttempt(SQLModel, table=True):
    """One request to a subscriber and its outcome.

    The row is inserted when the attempt is settled, never changes, and is purged with its delivery. An attempt whose
    process died has no row.
    """

    __tablename__: ClassVar[str] = "delivery_attempt"
    __table_args__ = (Index("ix_delivery_attempt_delivery_id", "delivery_id", "number", unique=True),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    delivery_id: int = Field(foreign_key="delivery.id", sa_type=BigKey)
    number: int
    """The delivery's `attempt` while it was made; the first is 1."""
    started_at: datetime = Field(sa_type=Moment)
    duration_ms: int
    status_code: int | None = None
    """The HTTP status; null if there was no response."""
    error: str | None = None
    """Why there was no complete response, why the request was not sent, or that a redirect was not followed; null
    otherwise, also where the status alone says that the attempt failed."""
    response: str | None = Field(default=None, sa_type=Text)
    """The first 4 KB of the response's body; empty if there was none."""
