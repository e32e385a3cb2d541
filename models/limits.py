"""The limits that several processes on one PostgreSQL share."""

from datetime import datetime
from typing import ClassVar

from sqlmodel import Field, SQLModel

from models.columns import Moment, PublicId


class LimitUse(SQLModel, table=True):
    """How much of one limit a process wants at present, so that each process can take its part of it.

    Used on PostgreSQL only. The row is inserted when the limit is busy in the process, changed at most once a second
    from then on, without meaning when it is a few seconds old, and purged later. Its times are of the database's clock.
    """

    __tablename__: ClassVar[str] = "limit_use"

    name: str = Field(primary_key=True)
    """Which limit, such as `key:<row key>`."""
    process: str = Field(sa_type=PublicId, primary_key=True)
    wanted: float
    """How much the process would use if there were no limit, in the limit's own unit."""
    at: datetime = Field(sa_type=Moment)
