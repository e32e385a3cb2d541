"""Runs: small graphs of tasks, each step a task."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Column, Index
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId
from models.states import RunStatus, StepStatus


class Run(SQLModel, table=True):
    """Several steps in the order of their dependencies.

    The row is inserted with its steps by the request that creates the run. It ends when every step has ended, or at
    once when it is cancelled; a retry opens it again. It is purged when it ended longer ago than the retention and its
    tasks are purged.
    """

    __tablename__: ClassVar[str] = "run"
    __table_args__ = (
        Index("ix_run_organization_id", "organization_id", "id"),
        Index("ix_run_status", "organization_id", "status", "id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    """The id that the API shows: a UUIDv7."""
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    status: str = RunStatus.PENDING
    metadata_: Any = Field(default=None, sa_column=Column("metadata", Document))
    """The client's own `metadata`, which steps may refer to and their tasks inherit; null if none was given."""
    trace_context: str | None = None
    """The trace that its create belongs to, as that of a task; the tasks of its steps inherit it. Null if there is
    none. Never changes."""
    created_at: datetime = Field(sa_type=Moment)
    updated_at: datetime = Field(sa_type=Moment)
    """When the run, or a step of it, last changed."""
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
    """When the run ended; null until then, and again after a retry or while a correction continues it."""
    ended_event: str | None = Field(default=None, sa_type=PublicId)
    """The id of the event that ended the run, which the next end refers to when a correction leads to it. Null until it
    has ended, and again after a retry."""


class RunStep(SQLModel, table=True):
    """One step of a run. Its status follows the status of its task.

    The row is inserted with its run, gets a task when every step that it depends on has completed, and is purged with
    its run. A retry of the run resets a step that failed, was skipped or was cancelled: it lets go of its task, and
    gets a new one.
    """

    __tablename__: ClassVar[str] = "run_step"
    __table_args__ = (Index("ix_run_step_run_id", "run_id", "position", unique=True),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    run_id: int = Field(foreign_key="run.id", sa_type=BigKey)
    position: int
    """Its index in the request's list of steps, from 0."""
    name: str
    """Its `id` in the request."""
    status: str = StepStatus.PENDING
    spec: Any = Field(sa_type=Document)
    """The step as requested, and its action as defined at that time: an actions file that changes later changes no
    existing run."""
    task_uid: str | None = Field(default=None, sa_type=PublicId)
    """The id of its task; null until the step begins, and again after a retry has reset it."""
    result: Any = Field(default=None, sa_type=Document, nullable=True)
    """What the steps that depend on it may refer to; null unless it completed."""
    error: Any = Field(default=None, sa_type=Document, nullable=True)
    """Why it failed, was skipped or was cancelled; null in every other state."""
    started_at: datetime | None = Field(default=None, sa_type=Moment)
    """When its task was created; null until then, and again after a retry has reset it."""
    completed_at: datetime | None = Field(default=None, sa_type=Moment)
    """When it reached a terminal state, whichever; null until then."""
