"""What system events need besides the log of events: which conditions were told, and which alerts are to be sent."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Moment, PublicId


class SystemCondition(SQLModel, table=True):
    """A condition that was told by a system event, so that it is told once and not at every look.

    The row is inserted in the transaction of the event, changed when the condition is told again because it lasts, and
    deleted when the condition is over, or long after it was told last.
    """

    __tablename__: ClassVar[str] = "system_condition"

    type: str = Field(primary_key=True)
    """One of `models.states.SYSTEM_EVENTS`."""
    subject: str = Field(primary_key=True)
    """What it is about: the id of a webhook or a task, the name of a provider."""
    told_at: datetime = Field(sa_type=Moment)
    """When it was told last."""


class Alert(SQLModel, table=True):
    """One system event that is still to be sent to one of the operator's own channels (`RINGBACK_ALERT_URLS`).

    The row is inserted in the transaction of the event, one for each channel that is set, and deleted when it was sent,
    given up, or when its channel is set no more.
    """

    __tablename__: ClassVar[str] = "alert"
    __table_args__ = (Index("ix_alert_due_at", "due_at"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    event_uid: str = Field(sa_type=PublicId)
    """The id of the event, as the API shows it. The event itself may be purged earlier."""
    channel: str
    """The fingerprint of the channel's URL, which may have a secret in it."""
    type: str
    text: str
    """What is sent: one line, without any secret."""
    attempt: int = 0
    """How many times it was sent, with or without success."""
    due_at: datetime = Field(sa_type=Moment)
    """When it is sent next, or when the lease of the process that sends it ends."""
    created_at: datetime = Field(sa_type=Moment)
