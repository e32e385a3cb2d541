"""Providers and the accounts at them, as they are answered (`receiver.api.provider_accounts`)."""

from typing import Literal

from receiver.api.description.forms import Answered, Id, Time
from receiver.providers import CallbackScope, CancelScope


class CredentialAnswer(Answered):
    """A credential that is set; its value is in no answer."""

    name: str
    hint: str | None
    """Its first characters, for who may change the account."""


class ProviderAccountAnswer(Answered):
    """An account at a provider, without its credentials."""

    object: Literal["provider_account"]
    id: Id | None
    """Null for the account of the environment."""
    provider: str
    name: str
    source: Literal["database", "environment"]
    organization_id: Id | None
    """Whose it is, for who may change the account; null for everyone's."""
    everyone: bool
    """Whether all organizations may use it."""
    is_default: bool
    credentials: list[CredentialAnswer]
    base_url: str | None
    """For who may change the account; null is the provider's own."""
    calls_per_second: float | None
    """Null is that of the settings."""
    concurrency: int | None
    refusal: str | None
    """Why the provider refused the key at the last call of the process that answers; null if it did not."""
    may_manage: bool
    """Whether you may ask the provider about it, and change it if it is in the database."""
    created_at: Time | None
    updated_at: Time | None


class CapabilitiesAnswer(Answered):
    """What a provider can do."""

    callback: CallbackScope
    """For what it is given an address for its webhooks."""
    proofs: list[str]
    """What its webhooks bring as proof besides the token in their path."""
    sends_secret: bool
    is_thin: bool
    """Whether its webhooks only say that there is news, so that the task is asked for."""
    cancels: CancelScope
    erases_ended: bool
    """Whether the call that cancels a task would erase one that has ended; Ringback looks first."""
    lists: bool
    """Whether it has a list of its tasks."""
    finds: bool
    """Whether it can be asked for a task by our own reference."""
    output_seconds: float | None
    record_seconds: float | None
    """How long it keeps outputs, and tasks; null where that is not known."""
    least_poll_seconds: float | None
    outputs_need_key: bool


class ProviderAnswer(Answered):
    """A provider."""

    object: Literal["provider"]
    name: str
    credentials: list[str]
    """The names of the credentials that an account needs."""
    optional_credentials: list[str]
    """The names of those that it may have besides, such as the secret of webhooks that a person has registered."""
    capabilities: CapabilitiesAnswer
    accounts: list[ProviderAccountAnswer]
    """Those that you may use; the operator sees all."""


class RemovedAccountAnswer(Answered):
    """An account that was removed."""

    object: Literal["provider_account"]
    id: Id
    deleted: Literal[True]


class AccountCheckAnswer(Answered):
    """What one call about an account, which costs nothing, has shown."""

    object: Literal["account_check"]
    provider: str
    account: str
    is_reached: bool
    is_accepted: bool
    fault: str | None
    calls_left: str | None
    """What the provider says that its rate limit still lets through."""
    credits: float | None
    """What is left of the account's money, in the provider's own unit."""
