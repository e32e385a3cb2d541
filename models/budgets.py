"""The rate limit of a provider that all processes on one PostgreSQL share."""

from datetime import datetime
from typing import ClassVar

from sqlmodel import Field, SQLModel

from models.columns import Moment


class ProviderBudget(SQLModel, table=True):
    """How far the calls to one provider are reserved. Used on PostgreSQL only, where several processes share it.

    The row is inserted by the first reservation or pause, changed by every one after that, and never deleted. All of
    its times are of the database's clock, which is the same for every process.
    """

    __tablename__: ClassVar[str] = "provider_budget"

    provider: str = Field(primary_key=True)
    next_at: datetime = Field(sa_type=Moment)
    """The time of the next call that no process has reserved yet."""
    paused_until: datetime = Field(sa_type=Moment)
    """No call is reserved before this time: the provider asked for a pause (`Retry-After`). `-infinity` if it never
    did; a pause that is over stays here."""
