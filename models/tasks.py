"""Tasks: pieces of work that a client wants done."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Column, Index, false, text
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId
from models.conditions import IS_OF_ANOTHER_PROVIDER, IS_SENT_AND_DUE
from models.states import Submission, TaskStatus

_IS_UNSENT_AND_DUE = text("due_at IS NOT NULL AND submission = 'waiting'")
_HAS_CALLBACK = text("callback_id IS NOT NULL")
_HAS_RUN = text("run_uid IS NOT NULL")
_HAS_PROVIDER_TASK_ID = text("provider_task_id IS NOT NULL")


class Task(SQLModel, table=True):
    """One task, with its present attempt; its id stays the same across every attempt at the provider.

    The row is inserted when a client creates the task, when a step of a run begins, or when an update arrives for a
    task of the provider's that has no row yet (an adopted one). It ends in a terminal state, from which only a retry or
    the one allowed correction (`failed` to `completed`) leads on. It is purged, with its attempts, events and
    deliveries, when it last changed longer ago than the retention; not while a delivery of it is pending, or its run is
    kept.
    """

    __tablename__: ClassVar[str] = "task"
    __table_args__ = (
        # Organizations take turns here too: what many tasks of one are due for does not delay the others' polls.
        Index(
            "ix_task_due",
            "organization_id",
            "due_at",
            sqlite_where=IS_SENT_AND_DUE,
            postgresql_where=IS_SENT_AND_DUE,
        ),
        # Tasks that wait to be sent are in queues of their own (one for each `bulk` and organization), which take
        # turns: a long queue delays neither another queue nor the polls of tasks that were sent.
        Index(
            "ix_task_unsent",
            "bulk",
            "organization_id",
            "due_at",
            sqlite_where=_IS_UNSENT_AND_DUE,
            postgresql_where=_IS_UNSENT_AND_DUE,
        ),
        Index(
            "ix_task_provider_task_id",
            "provider",
            "provider_task_id",
            unique=True,
            sqlite_where=_HAS_PROVIDER_TASK_ID,
            postgresql_where=_HAS_PROVIDER_TASK_ID,
        ),
        # A purge of subscriptions asks whether a task still names them.
        Index("ix_task_callback_id", "callback_id", sqlite_where=_HAS_CALLBACK, postgresql_where=_HAS_CALLBACK),
        Index("ix_task_run_uid", "run_uid", sqlite_where=_HAS_RUN, postgresql_where=_HAS_RUN),
        # A type that few tasks have, or none, is not looked for in all of them.
        Index("ix_task_task_type", "organization_id", "task_type", "id"),
        Index("ix_task_status", "organization_id", "status", "id"),
        Index("ix_task_model", "organization_id", "model", "id"),
        Index(
            "ix_task_other_provider",
            "organization_id",
            "provider",
            "id",
            sqlite_where=IS_OF_ANOTHER_PROVIDER,
            postgresql_where=IS_OF_ANOTHER_PROVIDER,
        ),
        # For a rare model among many tasks of one status, a scan of either index above would be long.
        Index("ix_task_status_model", "organization_id", "status", "model", "id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    """The id that the API shows: a UUIDv7."""
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey)
    provider: str
    account_id: int | None = Field(default=None, sa_type=BigKey)
    """The account at the provider that its tasks there are in (`provider_account.id`); null for that of the
    environment. Never changes. No foreign key: accounts are never deleted, and each create would lock its row."""
    model: str
    """As the client named it; of an adopted task as its first update named it, or `unknown`. Never changes."""
    task_type: str
    """As `model`."""

    bulk: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """Whether it was created together with others; these take turns with single ones to be sent. Never changes."""

    status: str = TaskStatus.QUEUED
    """Changed by updates through `receiver.tracking.apply`, and set back to `queued` by a retry."""
    submission: str = Submission.WAITING
    """The state of the present attempt's create call. A task of a single create begins as `sending`, one of a bulk
    create or of a run as `waiting`; every further attempt begins as `waiting`."""
    attempt: int = 1
    """The number of the present attempt. Counted up when a failed attempt is followed by another one, by
    `max_attempts` or because the client asks for a retry."""
    max_attempts: int = 1
    """After how many attempts a failure is final. As requested; a client's retry raises it where needed, and
    cancelling the run of a step lowers it to the present attempt, until the run is retried."""
    backoff_seconds: float = 1.0
    """The base of the delay before each further attempt by `max_attempts`. Never changes."""
    provider_task_id: str | None = None
    """The provider's id for the present attempt. Null until the first update or create response that names it, and
    again from the beginning of a further attempt."""
    handle: Any = Field(default=None, sa_type=Document, nullable=True)
    """What the provider's adapter needs besides `provider_task_id` to ask for the task again (addresses, a kind): a
    small object of its own. Null if the id is enough, or an update without it was the first to name the task."""

    progress: int = 0
    """Percent, as the provider reports it; 100 when completed, 0 at the beginning of an attempt."""
    revision: str = ""
    """Orders the snapshots of the present attempt, so that an older one changes nothing; see
    `receiver.domain.revisions`. Set by each applied update; empty before the first."""
    words: Any = Field(default=None, sa_type=Document, nullable=True)
    """The provider's status words in this attempt that we do not know, sorted, each once. Null before the first one, at
    the beginning of an attempt, and after an end that the provider reported."""

    input: Any = Field(default=None, sa_type=Document, nullable=True)
    """The provider's `input` as the client sent it; of an adopted task as its first update showed it, null if that
    showed none. Never changes."""
    config: Any = Field(default=None, sa_type=Document, nullable=True)
    """The client's `config` without `webhook_config`, which becomes a subscription (`callback_id`). Null if none was
    given. Never changes."""
    metadata_: Any = Field(default=None, sa_column=Column("metadata", Document))
    """The client's own `metadata`, or that of the run. Null if none was given; then a client that adopts the task may
    set it once."""
    output: Any = Field(default=None, sa_type=Document, nullable=True)
    """The output of the newest snapshot, replaced whole by each newer one. Null while there is none, and from the
    beginning of a further attempt. Never changes once the task is completed with an output."""
    error: Any = Field(default=None, sa_type=Document, nullable=True)
    """The error of the newest snapshot or of the end. After a failed attempt it stays until the next one reports
    something; null after completion and after a client's retry."""
    logs: Any = Field(default=None, sa_type=Document, nullable=True)
    """As `output`."""
    detail: Any = Field(default=None, sa_type=Document, nullable=True)
    """As `output`."""
    meta: Any = Field(default=None, sa_type=Document, nullable=True)
    """The rest of the provider's `meta` (usage and the like); otherwise as `output`."""

    callback_id: int | None = Field(default=None, foreign_key="subscription.id", sa_type=BigKey)
    """The subscription of the client's own `webhook_config`; null if none was given. Never changes."""
    ended_event: str | None = Field(default=None, sa_type=PublicId)
    """The id of the event that ended the task, which a correction or a retry refers to. Null until it has ended, and
    again after a client's retry; a correction replaces it with its own."""

    cancel_requested_at: datetime | None = Field(default=None, sa_type=Moment)
    """When its run was cancelled while it was under way: from then on the provider is asked to cancel it, until it has
    answered. Null for any other task, and again when the provider has refused or the run is retried. A task that has
    ended keeps it."""

    stored_bytes: int = Field(default=0, sa_type=BigKey, sa_column_kwargs={"server_default": "0"})
    """About how many bytes of documents it has, for the organization's limit: of what the client sent, and of all
    content from the provider that was written, for earlier content is in its events. 0 for what an earlier version
    stored."""

    run_uid: str | None = Field(default=None, sa_type=PublicId)
    """The run that it is a step of; null for any other task. Never changes."""
    step: str | None = None
    """The step's id in that run; null for any other task. Never changes."""
    trace_context: str | None = None
    """The trace that its create belongs to: a `traceparent` of W3C Trace Context, 55 characters, which its deliveries
    pass on. That of the client's request, or of the span of it; of a step that of the run. Null if neither is known.
    Never changes."""

    created_at: datetime = Field(sa_type=Moment)
    """When the row was inserted; of an adopted task when the provider created it, if it reports a time in the past."""
    updated_at: datetime = Field(sa_type=Moment)
    """When state or content last changed, by our clock; neither a claim nor an update without news changes it. The
    retention of a task that has ended counts from here, because the provider's clock may be wrong."""
    submitted_at: datetime | None = Field(default=None, sa_type=Moment)
    """When the create call of the newest attempt that was sent began, written before the call; null before the first.
    While a further attempt waits to be sent it is still that of the attempt before."""
    submit_token: str | None = Field(default=None, sa_type=PublicId)
    """A new one each time a process writes that it is about to send the task, so that it can find out whether a write
    whose outcome it does not know was its own. Null before the first; for the first attempt of a single create, whose
    row itself is that write, too."""
    started_at: datetime | None = Field(default=None, sa_type=Moment)
    """When the provider began to work on the present attempt; null until it reports that."""
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
    """When the task ended, by the provider's clock where it reports that, otherwise by ours: to be shown, and nothing
    is calculated with it. Null until then, and again after a client's retry."""
    last_update_at: datetime = Field(sa_type=Moment)
    """When the last update with news arrived, a poll was last answered with a known status, a further attempt was
    begun, or the row was inserted. The time-out counts from here, and the later looks at a task that Ringback ended."""
    due_at: datetime | None = Field(default=None, sa_type=Moment)
    """When a process must act on it next (send, poll, search, recall or fail it), or when its lease ends if it is
    `leased`. Null when it has ended; but while a failure that Ringback concluded by itself may be wrong, when to look
    again."""
    leased: bool = False
    """Whether a process is acting on it. Set by a claim, cleared by every other change of `due_at`."""
    poll_count: int = 0
    """How many polls brought no news since the last update with news; while the attempt waits to be sent, how many
    times sending it failed or was put off; after an end of Ringback's own, how many later looks were answered. Set to 0
    by news, at the beginning of an attempt and by a recall."""
    missing_count: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """How many polls in a row the provider answered with "not found"; while the create call has no answer, how many
    complete lists did not have the task. Set to 0 when the provider knows the task."""
    missing_since: datetime | None = Field(default=None, sa_type=Moment)
    """When the first of them was answered; null while `missing_count` is 0."""
    exception_count: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """How many times in a row acting on it raised an exception. Set to 0 by an update, also by one without news."""
