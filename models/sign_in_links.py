"""The one-time links to the dashboard that were used."""

from datetime import datetime
from typing import ClassVar

from sqlmodel import Field, SQLModel

from models.columns import Moment


class SignInLink(SQLModel, table=True):
    """A one-time link that was used, by what is random in it: the link itself is signed, and in no table.

    Inserted when it is used, so that it is used once by all processes together. Deleted by a later use, once the link
    has expired.
    """

    __tablename__: ClassVar[str] = "sign_in_link"

    nonce: str = Field(primary_key=True)
    expires_at: datetime = Field(sa_type=Moment, index=True)
    """From when on the link is refused in any case."""
