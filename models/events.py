"""Events: the log of what happened to tasks, runs and webhooks."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId
from models.states import FREQUENT_TYPES

_HAS_RUN = text("run_uid IS NOT NULL")
_IS_RARE = text(" AND ".join(f"type <> '{each}'" for each in FREQUENT_TYPES))


class Event(SQLModel, table=True):
    """One change. History, stream and deliveries all read this row.

    The row is inserted in the transaction of the change itself and never changes. It is purged with its task, with its
    run, or, where it belongs to neither, when it is older than the retention and no delivery of it is pending; never
    before all of its deliveries are written.
    """

    __tablename__: ClassVar[str] = "event"
    __table_args__ = (
        Index("ix_event_task_id", "task_id", "id"),
        Index("ix_event_organization_id", "organization_id", "id"),
        Index("ix_event_run_uid", "run_uid", "id", sqlite_where=_HAS_RUN, postgresql_where=_HAS_RUN),
        # A type that few events have is not looked for in all of them.
        Index(
            "ix_event_rare_type",
            "organization_id",
            "type",
            "id",
            sqlite_where=_IS_RARE,
            postgresql_where=_IS_RARE,
        ),
        # SQLite must not reuse the number of a purged event: a stream that resumes would miss the event that got it.
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    """The sequence number that streams resume from. The order of numbers is not the order of commits on PostgreSQL."""
    uid: str = Field(sa_type=PublicId, unique=True)
    """The `webhook-id`: the same for every subscriber and every attempt."""
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    task_id: int | None = Field(default=None, foreign_key="task.id", sa_type=BigKey)
    """The task that changed; null for an event of no task (`run.completed`, `webhook.disabled`)."""
    run_uid: str | None = Field(default=None, sa_type=PublicId)
    """The run that changed, or the run that the changed task is a step of; null where there is none."""
    type: str
    """One of `models.states.EventType`, except `ping`."""
    snapshot: Any = Field(sa_type=Document)
    """The task, run or webhook as the change left it. The output of a completed task is left out: the task's row has
    it, and it never changes again there."""
    created_at: datetime = Field(sa_type=Moment)
    request_id: str | None = None
    """The id of the request that caused the change, of a client or of a provider's webhook; null if none did."""
