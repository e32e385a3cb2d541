"""Bulk actions: requests to cancel, retry or refresh every task that matches a filter, in the background."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Column, Index
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId
from models.states import BulkActionStatus


class BulkAction(SQLModel, table=True):
    """One request to cancel, retry or refresh the tasks that matched it, and that existed then.

    The row is inserted by the request. A process that claims it writes the next batch of tasks into it before it acts
    on them, and what became of them afterwards; so any process can continue after a restart, and act on no task twice.
    It ends with the last batch, or when it is cancelled. It is purged when it ended longer ago than the retention.
    """

    __tablename__: ClassVar[str] = "bulk_action"
    __table_args__ = (
        Index("ix_bulk_action_organization_id", "organization_id", "id"),
        Index("ix_bulk_action_status", "status"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    """The id that the API shows: a UUIDv7."""
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    kind: str
    """One of `models.states.BulkActionKind`. Never changes."""
    requested_by: str
    """The name of the key or the person that asked for it. Never changes."""
    status: str = BulkActionStatus.RUNNING
    filter_: Any = Field(sa_column=Column("filter", Document, nullable=False))
    """Which tasks, by the names of the request, with times as text. Never changes."""
    matched: int = 0
    """How many tasks matched when it was requested. Never changes."""
    done: int = 0
    """How many tasks were cancelled, retried or made due by now."""
    failed: Any = Field(default=None, sa_type=Document, nullable=True)
    """How many were refused by now, by error code; null while none was."""
    cursor: int = Field(default=0, sa_type=BigKey)
    """The row key of the last task that a batch has had; 0 before the first batch."""
    newest: int = Field(default=0, sa_type=BigKey)
    """The greatest row key of a task of the organization when it was requested: later ones are not acted on."""
    batch: Any = Field(default=None, sa_type=Document, nullable=True)
    """The tasks that are acted on now: a list of `task` (the id), `attempt` (when it was planned) and `tries`. Null
    between two batches."""
    due_at: datetime | None = Field(default=None, sa_type=Moment)
    """When to go on with it, or when its lease ends if it is `leased`. Null when it has ended, and no
    process acts on a batch of it."""
    leased: bool = False
    """Whether a process acts on its batch. Set by a claim, cleared when the batch's outcome is written."""
    created_at: datetime = Field(sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
    """When the outcome of the last batch was written, or when it was cancelled; null while it runs."""
