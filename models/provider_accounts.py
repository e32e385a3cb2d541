"""Accounts at providers, besides those that the environment describes."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index, Text, text
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId

_IS_EVERYONES = text("organization_id IS NULL AND removed_at IS NULL")
_IS_THERE = text("removed_at IS NULL")


class StoredAccount(SQLModel, table=True):
    """An account at a provider, with the credentials by which its tasks are created, looked at and cancelled.

    Inserted by an administrator. A row is never deleted: tasks name it as long as they are kept.
    """

    __tablename__: ClassVar[str] = "provider_account"
    __table_args__ = (
        # Two indexes, for a null is equal to no other null.
        Index(
            "ix_provider_account_name",
            "provider",
            "name",
            unique=True,
            sqlite_where=_IS_EVERYONES,
            postgresql_where=_IS_EVERYONES,
        ),
        Index(
            "ix_provider_account_own_name",
            "organization_id",
            "provider",
            "name",
            unique=True,
            sqlite_where=_IS_THERE,
            postgresql_where=_IS_THERE,
        ),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    """The id that the API shows: a UUIDv7."""
    provider: str
    name: str
    """Unique for its provider and owner among the accounts that are not removed. Never changes."""
    organization_id: int | None = Field(default=None, foreign_key="organization.id", sa_type=BigKey)
    """Whose it is; null for everyone's. Never changes."""
    credentials: str = Field(sa_type=Text)
    """JSON with the credentials by the names that the provider's API gives them, encrypted. Kept after the removal, for
    the tasks that are under way."""
    hints: Any = Field(default=None, sa_type=Document, nullable=True)
    """By the same names the first characters of each credential, so that a person can tell accounts apart."""
    base_url: str | None = None
    """Where the API is; null for where the environment says, else the provider's own."""
    calls_per_second: float | None = None
    """The most calls of all processes together; null for that of the settings."""
    concurrency: int | None = None
    """The most calls at a time, of each process; null for no bound."""
    is_default: bool = False
    """Whether its owner's tasks of this provider use it where they name none. At most one for each owner."""
    created_at: datetime = Field(sa_type=Moment)
    updated_at: datetime = Field(sa_type=Moment, index=True)
    """When it last changed: processes read again what is newer than what they know."""
    removed_at: datetime | None = Field(default=None, sa_type=Moment)
    """From when on it takes no new tasks and is not shown; null while it is in use."""
