"""Tasks: pieces of work that a client wants done."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Column, Index, false, text
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId
from models.states import Submission, TaskStatus

_SENT_AND_DUE = text("due_at IS NOT NULL AND submission <> 'waiting'")
_UNSENT_AND_DUE = text("due_at IS NOT NULL AND submission = 'waiting'")
_CALLS_BACK = text("callback_id IS NOT NULL")
_OF_A_RUN = text("run_uid IS NOT NULL")
_KNOWN_TO_PROVIDER = text("provider_task_id IS NOT NULL")


class Task(SQLModel, table=True):
    """One task; its id stays the same across every attempt at the provider."""

    __tablename__: ClassVar[str] = "task"
    __table_args__ = (
        Index("ix_task_due", "due_at", sqlite_where=_SENT_AND_DUE, postgresql_where=_SENT_AND_DUE),
        # Those that wait to be sent stand in lines of their own, which take turns: however long one is, it holds up
        # neither another one nor the looks at what was sent.
        Index(
            "ix_task_unsent",
            "bulk",
            "organization_id",
            "due_at",
            sqlite_where=_UNSENT_AND_DUE,
            postgresql_where=_UNSENT_AND_DUE,
        ),
        Index(
            "ix_task_provider_task_id",
            "provider",
            "provider_task_id",
            unique=True,
            sqlite_where=_KNOWN_TO_PROVIDER,
            postgresql_where=_KNOWN_TO_PROVIDER,
        ),
        # Purging a subscription asks whether a task still names it.
        Index("ix_task_callback_id", "callback_id", sqlite_where=_CALLS_BACK, postgresql_where=_CALLS_BACK),
        Index("ix_task_run_uid", "run_uid", sqlite_where=_OF_A_RUN, postgresql_where=_OF_A_RUN),
        Index("ix_task_status", "organization_id", "status", "id"),
        Index("ix_task_model", "organization_id", "model", "id"),
        # A rare model among many of one status: either index above would be walked for long.
        Index("ix_task_status_model", "organization_id", "status", "model", "id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    """The id that the world knows: a UUIDv7."""
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    provider: str
    model: str
    task_type: str

    bulk: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """Whether it was created together with others: these take turns with single ones to be sent."""

    status: str = TaskStatus.QUEUED
    submission: str = Submission.WAITING
    attempt: int = 1
    max_attempts: int = 1
    backoff_seconds: float = 1.0
    provider_task_id: str | None = None
    """The provider's id for the present attempt."""

    progress: int = 0
    """Percent, as far as the provider tells."""
    revision: str = ""
    """Orders what was heard of a task that has not ended; see `receiver.domain.revision`."""
    words: Any = Field(default=None, sa_type=Document, nullable=True)
    """Status words that nobody knows, each kept once."""

    input: Any = Field(default=None, sa_type=Document, nullable=True)
    config: Any = Field(default=None, sa_type=Document, nullable=True)
    """The client's `config` without `webhook_config`, which is a subscription (`callback_id`)."""
    metadata_: Any = Field(default=None, sa_column=Column("metadata", Document))
    """The client's own `metadata`."""
    output: Any = Field(default=None, sa_type=Document, nullable=True)
    error: Any = Field(default=None, sa_type=Document, nullable=True)
    logs: Any = Field(default=None, sa_type=Document, nullable=True)
    detail: Any = Field(default=None, sa_type=Document, nullable=True)
    meta: Any = Field(default=None, sa_type=Document, nullable=True)
    """What else the provider says in `meta`: usage and the like."""

    callback_id: int | None = Field(default=None, foreign_key="subscription.id", sa_type=BigKey)
    ended_event: str | None = Field(default=None, sa_type=PublicId)
    """The id of the event that ended it, for a later correction to name."""

    run_uid: str | None = Field(default=None, sa_type=PublicId)
    """The run that it is a step of."""
    step: str | None = None
    """The step's id in that run."""

    created_at: datetime = Field(sa_type=Moment)
    updated_at: datetime = Field(sa_type=Moment)
    submitted_at: datetime | None = Field(default=None, sa_type=Moment)
    """When the create call of the present attempt was begun."""
    started_at: datetime | None = Field(default=None, sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
    last_update_at: datetime = Field(sa_type=Moment)
    """The last news: the time-out counts from here."""
    due_at: datetime | None = Field(default=None, sa_type=Moment)
    """When somebody must act on it next: submit it, look at it, give it up. Null when it has ended."""
    leased: bool = False
    """Whether somebody is acting on it, and `due_at` is when that ends at the latest."""
    poll_count: int = 0
    """How often it was looked at, or sent in vain, since the last news."""
