"""Organizations, and the API keys that authenticate for them."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Text, false
from sqlmodel import Field, SQLModel

from models.columns import BigKey, Document, Moment, PublicId
from models.states import Scope


class Organization(SQLModel, table=True):
    """The owner of tasks, runs, subscriptions and keys.

    The first start inserts `default`, `POST /api/v1/organizations` the others. A row is never deleted.
    """

    __tablename__: ClassVar[str] = "organization"

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    """The id that the API shows: a UUIDv7."""
    name: str = Field(unique=True)
    created_at: datetime = Field(sa_type=Moment)
    purged_event: int | None = Field(default=None, sa_type=BigKey)
    """The greatest number of an event of it that was purged: who resumes before it has missed events. Null if none
    was."""
    limits: Any = Field(default=None, sa_type=Document, nullable=True)
    """The limits that the operator set for it, by name (`receiver.organization_limits`); those that are not
    named have their defaults. Null if none is set."""
    owns_provider_account: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """Whether the provider account of the settings is its own: it may look at the account and adopt tasks that are
    not tracked. True for `default`."""


class ApiKey(SQLModel, table=True):
    """An API key, stored as its hash alone; only the first start's key is also kept encrypted, until it was used.

    The row is inserted by the first start, by the setting `RINGBACK_API_KEY` or by `POST /api/v1/keys`. It stays
    after the key is revoked, and is never deleted.
    """

    __tablename__: ClassVar[str] = "api_key"

    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    uid: str = Field(sa_type=PublicId, unique=True)
    """The id that the API shows: a UUIDv7."""
    organization_id: int = Field(foreign_key="organization.id", sa_type=BigKey, index=True)
    name: str
    scope: str = Scope.ADMIN
    hash: str = Field(unique=True)
    """SHA-256 of the key, in hex. Replaced only if the request that created the key is repeated under its idempotency
    key because its response was lost: no client knows the first secret then."""
    hint: str
    """The key's first characters, so that a person can tell keys apart; replaced together with `hash`."""
    sealed: str | None = Field(default=None, sa_type=Text)
    """The first admin key itself, encrypted, so that each start shows it again until it was used once. Null since then,
    and for every other key."""
    rate_limit: float | None = None
    """The most requests per second; null means the limit of the settings."""
    created_at: datetime = Field(sa_type=Moment)
    expires_at: datetime | None = Field(default=None, sa_type=Moment)
    """From when on it is refused; null if it does not expire. Never changes."""
    last_used_at: datetime | None = Field(default=None, sa_type=Moment)
    """When a request with it was last accepted, at most a minute behind; null before the first."""
    revoked_at: datetime | None = Field(default=None, sa_type=Moment)
    """When the key stopped being valid; null while it is valid. A key that the setting `RINGBACK_API_KEY` replaced is
    revoked, and valid again if the setting names it again."""
