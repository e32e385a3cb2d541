"""Organizations, and the keys that speak for them."""

from datetime import datetime
from typing import ClassVar

from sqlmodel import Field, SQLModel

from models.columns import BigKey, Moment, PublicId
from models.states import Scope


class Organization(SQLModel, table=True):
    """Whose tasks, subscriptions and keys these are. `default` is there from the start."""

    __tablename__: ClassVar[str] = "organization"

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    name: str = Field(unique=True)
    created_at: datetime = Field(sa_type=Moment)


class ApiKey(SQLModel, table=True):
    """A key, known by its hash alone."""

    __tablename__: ClassVar[str] = "api_key"

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey, index=True)
    name: str
    scope: str = Scope.ADMIN
    hash: str = Field(unique=True)
    """SHA-256 of the key, in hex."""
    hint: str
    """Its first characters, to tell keys apart."""
    rate_limit: float | None = None
    """Requests a second, at most; null for what the settings say."""
    created_at: datetime = Field(sa_type=Moment)
    revoked_at: datetime | None = Field(default=None, sa_type=Moment)
