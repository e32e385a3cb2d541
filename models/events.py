"""Events: changes written down, for ever the same."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId

_OF_A_RUN = text("run_uid IS NOT NULL")


class Event(SQLModel, table=True):
    """One change. History, stream and deliveries all read this row, and nothing ever changes it."""

    __tablename__: ClassVar[str] = "event"
    __table_args__ = (
        Index("ix_event_task_id", "task_id", "id"),
        Index("ix_event_organization_id", "organization_id", "id"),
        Index("ix_event_run_uid", "run_uid", "id", sqlite_where=_OF_A_RUN, postgresql_where=_OF_A_RUN),
        # A sequence number is never used twice, or a stream that resumes would miss what took its place.
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    """The sequence number that streams resume from."""
    uid: str = Field(sa_type=PublicId, unique=True)
    """The `webhook-id`: the same for every subscriber and every attempt."""
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    task_id: int | None = Field(default=None, foreign_key="task.id", sa_type=BigKey)
    """None for what happened to no task (`run.completed`, `webhook.disabled`)."""
    run_uid: str | None = Field(default=None, sa_type=PublicId)
    """The run that it happened to, itself or one of its steps' tasks."""
    type: str
    snapshot: Any = Field(sa_type=Document)
    """What the change made of the task. The output of a completed task is left out: it stands in the task's
    row, where it never changes again."""
    created_at: datetime = Field(sa_type=Moment)
