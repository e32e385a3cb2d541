"""How often a provider may be called, all processes together."""

from datetime import datetime
from typing import ClassVar

from sqlmodel import Field, SQLModel

from models.columns import Moment


class ProviderBudget(SQLModel, table=True):
    """What of a provider's budget is given away. Used where several processes share one database."""

    __tablename__: ClassVar[str] = "provider_budget"

    provider: str = Field(primary_key=True)
    next_at: datetime = Field(sa_type=Moment)
    """The moment of the next call that is not given away yet."""
    paused_until: datetime = Field(sa_type=Moment)
    """Until when the provider asked to be left alone."""
