"""Runs: small graphs of tasks, each step a task."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Column, Index
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId
from models.states import RunStatus, StepStatus


class Run(SQLModel, table=True):
    """Several steps in dependency order."""

    __tablename__: ClassVar[str] = "run"
    __table_args__ = (
        Index("ix_run_organization_id", "organization_id", "id"),
        Index("ix_run_status", "organization_id", "status", "id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    """The id that the world knows: a UUIDv7."""
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    status: str = RunStatus.PENDING
    metadata_: Any = Field(default=None, sa_column=Column("metadata", Document))
    """The client's own `metadata`, which steps may refer to."""
    created_at: datetime = Field(sa_type=Moment)
    updated_at: datetime = Field(sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)


class RunStep(SQLModel, table=True):
    """One step of a run. Its status follows its task's."""

    __tablename__: ClassVar[str] = "run_step"
    __table_args__ = (Index("ix_run_step_run_id", "run_id", "position", unique=True),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    run_id: int = Field(foreign_key="run.id", sa_type=BigKey)
    position: int
    """Its place in the request."""
    name: str
    """Its `id` in the request."""
    status: str = StepStatus.PENDING
    spec: Any = Field(sa_type=Document)
    """What was asked for, and the action as it was then: a changed actions file changes no run under way."""
    task_uid: str | None = Field(default=None, sa_type=PublicId)
    """Its task, once it has begun."""
    result: Any = Field(default=None, sa_type=Document, nullable=True)
    """What the steps below may refer to."""
    error: Any = Field(default=None, sa_type=Document, nullable=True)
    started_at: datetime | None = Field(default=None, sa_type=Moment)
    completed_at: datetime | None = Field(default=None, sa_type=Moment)
