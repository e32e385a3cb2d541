"""Statistics: sums of tasks and attempts by time, and what the search of tasks looks up, written by a worker.

The worker (`receiver.workers.statistics`) follows the events and the attempts at deliveries in the order of their row
keys. No row here is written in the transaction of a webhook or of a delivery.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from models.columns import BigKey, BytewiseText, Document, Moment
from models.states import StatisticStep


class StatisticPosition(SQLModel, table=True):
    """How far one log is counted: every row up to `position` is in the sums, and none after it.

    The two rows, `events` and `attempts`, are inserted by the migration. Each is changed in the transaction that adds
    to the sums, which so happens once however many processes try it.
    """

    __tablename__: ClassVar[str] = "statistic_position"

    log: str = Field(primary_key=True)
    position: int = Field(default=0, sa_type=BigKey)
    """The row key of the last row that is counted; 0 before the first."""
    holder: str | None = None
    """The process that counted last, by an id that it made when it started."""
    held_until: datetime | None = Field(default=None, sa_type=Moment)
    """Until when other processes leave the work to that one. They may be wrong about it without harm."""


class TaskStatistic(SQLModel, table=True):
    """What happened to the tasks of one model, or of an organization, in one minute, hour or day.

    The row is inserted with the first event of that time, and changed by later ones. One of a minute is purged after
    two days, the others after the retention.
    """

    __tablename__: ClassVar[str] = "task_statistic"
    __table_args__ = (Index("ix_task_statistic_at", "step", "at"),)

    organization_id: int = Field(primary_key=True, foreign_key="organization.id", sa_type=BigKey)
    step: str = Field(primary_key=True, default=StatisticStep.MINUTE)
    at: datetime = Field(primary_key=True, sa_type=Moment)
    """When the minute, hour or day begins, in UTC."""
    provider: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    """Both are empty for all tasks of the organization."""
    created: int = 0
    completed: int = 0
    """Ends by state. A correction moves an end: from the time and state of the earlier one to those of the later."""
    failed: int = 0
    cancelled: int = 0
    by_webhook: int = 0
    """How many of these ends a webhook brought."""
    by_poll: int = 0
    durations: Any = Field(sa_type=Document)
    """How long the completed tasks took since they were created: numbers of tasks by `receiver.domain.histograms`."""


class DeliveryStatistic(SQLModel, table=True):
    """What happened to the deliveries of one webhook, or of an organization, in one minute, hour or day.

    Written and purged as `TaskStatistic`. A row of a purged webhook stays as long.
    """

    __tablename__: ClassVar[str] = "delivery_statistic"
    __table_args__ = (Index("ix_delivery_statistic_at", "step", "at"),)

    organization_id: int = Field(primary_key=True, foreign_key="organization.id", sa_type=BigKey)
    step: str = Field(primary_key=True, default=StatisticStep.MINUTE)
    subscription_id: int = Field(primary_key=True, sa_type=BigKey)
    """A registered subscription; 0 for all deliveries of the organization, those to clients' callbacks too."""
    at: datetime = Field(primary_key=True, sa_type=Moment)
    """When the minute, hour or day begins, in UTC."""
    attempts: int = 0
    delivered: int = 0
    """The attempts that the subscriber accepted. The others failed."""
    dead: int = 0
    """The deliveries that were given up."""
    latencies: Any = Field(sa_type=Document)
    """How long attempts took that were answered, in the form of `TaskStatistic.durations`."""


class TaskMetadataValue(SQLModel, table=True):
    """One value in the metadata of a task, by which the task is found.

    Inserted a moment after the task, or with metadata that it is given later, and purged with it.
    """

    __tablename__: ClassVar[str] = "task_metadata_value"
    __table_args__ = (Index("ix_task_metadata_value_task_id", "task_id"),)

    organization_id: int = Field(primary_key=True, foreign_key="organization.id", sa_type=BigKey)
    value: str = Field(primary_key=True, sa_type=BytewiseText)
    """In lower case, and cut to 100 characters; empty for a task that has more values than are listed."""
    task_id: int = Field(primary_key=True, sa_type=BigKey)
