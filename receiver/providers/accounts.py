"""An account at a provider: where its API is, with which credentials, and how often it may be called."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_ACCOUNT = "default"
"""The account that the environment describes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderAccount:
    """An account at a provider. `credentials` are by the names that the API gives them.

    `base_url` is that of the API if it is None. `calls_per_second` bounds the calls of all processes together.
    """

    provider: str
    name: str = DEFAULT_ACCOUNT
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    base_url: str | None = None
    calls_per_second: float = 10.0
