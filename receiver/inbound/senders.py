"""Whose an inbound webhook is: the account at the provider that it came from, with the adapter that can read it."""

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct
from starlette.types import Scope

from receiver.domain.ids import is_id
from receiver.errors import NotFound
from receiver.providers import Provider, Providers
from receiver.storage.database import Database
from receiver.storage.known_accounts import KnownAccounts
from receiver.storage.tasks import account_of
from receiver.tracking.update_batch import DEFAULT_ORGANIZATION_ID


class InboundSender(Struct, frozen=True):
    """Whose webhook it is: the adapter of the account, and the row keys of that account and its organization.

    `account_id` is None for the account of the environment, whose organization is the first one.
    """

    adapter: Provider
    account_id: int | None = None
    organization_id: int = DEFAULT_ORGANIZATION_ID

    @property
    def name(self) -> str:
        """The name of the provider."""
        return self.adapter.name


class Accounts(Protocol):
    """What is asked of the accounts of the database."""

    @property
    def known(self) -> KnownAccounts:
        """The accounts in memory."""
        ...

    async def find(self, uid: str) -> Mapping[str, Any] | None:
        """Return the row of an account."""
        ...


class Senders:
    """Finds out whose webhooks are."""

    def __init__(self, database: Database, providers: Providers, accounts: Accounts) -> None:
        self._database = database
        self._providers = providers
        self._accounts = accounts

    async def of(self, provider: Provider, task_uid: str | None, scope: Scope) -> InboundSender:
        """Return whose webhook it is. Raises `NotFound` for an account that does not exist.

        A task's account is read only where it may matter: where webhooks are signed, or accounts are in use.
        """
        account_uid: str | None = scope["path_params"].get("account_id")
        if account_uid is not None:
            return await self._of_account(provider, account_uid.lower())
        if task_uid is None or not (provider.capabilities.proofs or self._accounts.known.has_any(provider.name)):
            return InboundSender(provider)
        rows = await self._database.read(account_of(task_uid))
        account_id = rows[0]["account_id"] if rows else None
        return InboundSender(await self._providers.of(provider.name, account_id), account_id)

    async def _of_account(self, provider: Provider, uid: str) -> InboundSender:
        row = await self._accounts.find(uid) if is_id(uid) else None
        if row is None or row["provider"] != provider.name:
            raise NotFound("there is no account with this id", code="account_not_found", param="account_id")
        adapter = await self._providers.of(provider.name, row["id"])
        return InboundSender(adapter, row["id"], row["organization_id"] or DEFAULT_ORGANIZATION_ID)
