"""An account at a provider: where its API is, with which credentials, and how often it may be called."""

from collections.abc import Mapping
from typing import ClassVar

from msgspec import Struct, field

from receiver.hidden_fields import HidesFields

DEFAULT_ACCOUNT = "default"
"""The name of the account that the environment describes."""


class ProviderAccount(HidesFields, Struct, frozen=True, kw_only=True):
    """An account at a provider. `credentials` are by the names that the API gives them.

    `base_url` is that of the API if it is None. `calls_per_second` bounds the calls of all processes together (None: as
    the settings say), `concurrency` how many of this process are open at a time (None: any number). `uid` is the id of
    an account of the database, "" for that of the environment; `organization_id` is whose it is, None for everyone's.
    """

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"credentials", "base_url"})

    provider: str
    name: str = DEFAULT_ACCOUNT
    credentials: Mapping[str, str] = field(default_factory=dict)
    base_url: str | None = None
    calls_per_second: float | None = None
    concurrency: int | None = None
    uid: str = ""
    organization_id: int | None = None
