"""Fan-outs: events whose deliveries are not all written yet."""

from typing import ClassVar

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from models.columns import BigKey


class FanOut(SQLModel, table=True):
    """One event of an organization with many webhooks, until each of those that it matches has its delivery.

    The row is inserted in the transaction of its event. The deliveries are written later, some at a time, in the order
    of the organization's events, and the row is deleted with the last of them.
    """

    __tablename__: ClassVar[str] = "fan_out"
    __table_args__ = (
        Index("ix_fan_out_organization_id", "organization_id", "event_id"),
        Index("ix_fan_out_task_id", "task_id"),
    )

    event_id: int = Field(primary_key=True, foreign_key="event.id", sa_type=BigKey)
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    task_id: int | None = Field(default=None, foreign_key="task.id", sa_type=BigKey)
    """The event's task, copied so that a purge finds it here; null for an event of no task."""
    after_subscription_id: int = Field(default=0, sa_type=BigKey)
    """The last subscription that was looked at; 0 before the first."""
    until_subscription_id: int = Field(sa_type=BigKey)
    """The newest subscription of the organization when the event happened: later ones do not receive it."""
