"""Schemas of what administrators send about accounts at providers."""

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, StringConstraints

from receiver.api.schemas import Few, RequestFields, UuidText
from receiver.setting_values import read_base_url
from receiver.storage.known_accounts import ENVIRONMENT

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _check_name(name: str) -> str:
    if name == ENVIRONMENT:
        raise ValueError(f"{ENVIRONMENT!r} is the account that the environment describes: choose another name")
    if _ID.fullmatch(name.lower()):
        raise ValueError("may not have the form of an id")
    return name


def _read_account_url(value: str) -> str:
    """Return a base URL without a user and password: it is stored and shown in clear."""
    if "@" in urlsplit(url := read_base_url(value)).netloc:
        raise ValueError("may have no user and password: credentials are given by their names, and stored encrypted")
    return url


def _without_defaults(schema: dict[str, Any]) -> None:
    for field in schema["properties"].values():
        field.pop("default", None)


AccountName = Annotated[str, StringConstraints(pattern=_NAME), AfterValidator(_check_name)]
CredentialText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]
GivenCredentials = Annotated[dict[str, CredentialText], Few]
AccountURL = Annotated[str, StringConstraints(max_length=500), AfterValidator(_read_account_url)]
CallsPerSecond = Annotated[float, Field(ge=0.001, le=10_000, strict=True)]
Concurrency = Annotated[int, Field(ge=1, le=10_000, strict=True)]


class CreateAccount(RequestFields):
    """`POST /api/v1/providers/{provider}/accounts`: an account at a provider."""

    model_config = ConfigDict(extra="forbid")

    name: AccountName
    credentials: GivenCredentials
    """By the names that the provider has for them; they never come back."""
    base_url: AccountURL | None = None
    """Where the API is, by default as for the environment's account. For the operator alone."""
    calls_per_second: CallsPerSecond | None = None
    """Of all processes together; null means `RINGBACK_PROVIDER_RATE`."""
    concurrency: Concurrency | None = None
    """The most calls at a time, of each process."""
    is_default: StrictBool = False
    """Whether tasks of this provider use it where they name no account."""
    everyone: StrictBool = False
    """Whether all organizations may use it. For the operator alone."""
    organization_id: UuidText | None = None
    """Whose it is, by default your organization's. For the operator alone."""


class ChangeAccount(RequestFields):
    """`PATCH /api/v1/providers/{provider}/accounts/{account}`: only given fields are changed; null resets one."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_defaults)

    credentials: GivenCredentials = Field(default_factory=dict)
    """Those that are given are replaced, at once."""
    base_url: AccountURL | None = None
    calls_per_second: CallsPerSecond | None = None
    concurrency: Concurrency | None = None
    is_default: StrictBool = False
