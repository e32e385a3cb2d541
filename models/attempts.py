"""Earlier attempts of tasks. The present attempt of a task is in the task's own row."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment

_HAS_PROVIDER_TASK_ID = text("provider_task_id IS NOT NULL")


class TaskAttempt(SQLModel, table=True):
    """One attempt of a task that ended without success and was followed by another attempt.

    The row is inserted in the transaction that begins the next attempt, and is purged with its task. It never changes,
    but that the provider's id may become known later.
    """

    __tablename__: ClassVar[str] = "task_attempt"
    __table_args__ = (
        Index("ix_task_attempt_task_id", "task_id", "number", unique=True),
        Index(
            "ix_task_attempt_provider_task_id",
            "provider",
            "provider_task_id",
            sqlite_where=_HAS_PROVIDER_TASK_ID,
            postgresql_where=_HAS_PROVIDER_TASK_ID,
        ),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    task_id: int = Field(foreign_key="task.id", sa_type=BigKey)
    number: int
    """The task's `attempt` while this attempt was the present one; the first is 1."""
    provider: str
    provider_task_id: str | None = None
    """The provider's id for this attempt; null if it never became known. A late update with this id belongs to
    this attempt, and to no other task."""
    status: str
    """How the attempt ended: `failed`, or `cancelled` if the client retried a cancelled task."""
    error: Any = Field(default=None, sa_type=Document, nullable=True)
    """The error that ended it; null if there was none, as for a cancelled one."""
    submitted_at: datetime | None = Field(default=None, sa_type=Moment)
    """When its create call began; null if it was never sent, or if the provider created the task elsewhere."""
    started_at: datetime | None = Field(default=None, sa_type=Moment)
    """When the provider began to work on it; null if the provider did not report that."""
    ended_at: datetime = Field(sa_type=Moment)
    """When it ended, by the provider's clock where the provider reported it, otherwise by ours."""
