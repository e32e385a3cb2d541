"""The master keys that processes were started with."""

from datetime import datetime
from typing import ClassVar

from sqlmodel import Field, SQLModel

from models.columns import BigKey, Moment


class MasterKey(SQLModel, table=True):
    """A master key that a process was started with, by its fingerprint alone: the key itself is in no table.

    Inserted by the first start that has the key. Deleted by a start that does not have it any more, once nothing stored
    and no task under way needs it.
    """

    __tablename__: ClassVar[str] = "master_key"

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    fingerprint: str = Field(unique=True)
    """What `KeyRing.fingerprints` says of the key: it tells keys apart and tells nothing else of them."""
    newest_since: datetime | None = Field(default=None, sa_type=Moment)
    """When a process was last started with this as its newest key while another one had been the newest; null if it
    never was."""
    created_at: datetime = Field(sa_type=Moment)
