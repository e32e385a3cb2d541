"""Attempts of tasks that another attempt followed. The present one is the task's own row."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment

_KNOWN_TO_PROVIDER = text("provider_task_id IS NOT NULL")


class TaskAttempt(SQLModel, table=True):
    """One attempt that ended without success, kept when the next one began."""

    __tablename__: ClassVar[str] = "task_attempt"
    __table_args__ = (
        Index("ix_task_attempt_task_id", "task_id", "number", unique=True),
        Index(
            "ix_task_attempt_provider_task_id",
            "provider",
            "provider_task_id",
            sqlite_where=_KNOWN_TO_PROVIDER,
            postgresql_where=_KNOWN_TO_PROVIDER,
        ),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    task_id: int = Field(foreign_key="task.id", sa_type=BigKey)
    number: int
    provider: str
    provider_task_id: str | None = None
    """Late news of it is news of this attempt, and of no other task."""
    status: str
    """How it ended: `failed`, or `cancelled`."""
    error: Any = Field(default=None, sa_type=Document, nullable=True)
    submitted_at: datetime | None = Field(default=None, sa_type=Moment)
    started_at: datetime | None = Field(default=None, sa_type=Moment)
    ended_at: datetime = Field(sa_type=Moment)
