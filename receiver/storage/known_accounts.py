"""The accounts at providers in memory, so that choosing one for a task costs no query."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from difflib import get_close_matches
from itertools import count

from msgspec import Struct

from receiver.errors import BadRequest
from receiver.storage.database import Database
from receiver.storage.provider_accounts import accounts_changed_since

EVERY_SECONDS = 1.0
"""How often changes are read: about how late a change by another process is known at most."""
_OVERLAP = timedelta(seconds=60)
"""Changes are read again for this long: a transaction may commit late, and clocks of processes differ."""
_ALL_EVERY = 30
"""One reading in this number is of all accounts: a clock may be further behind."""
ENVIRONMENT = "default"
"""The name of the account that the environment describes."""
_MOST_NAMES = 5


class AccountChoice(Struct, frozen=True):
    """An account that a task may use. `organization_id` is None for everyone's."""

    id: int
    uid: str
    provider: str
    name: str
    organization_id: int | None
    is_default: bool
    updated_at: datetime


class KnownAccounts:
    """The accounts that are in use. `forget` is told the row keys of those that have changed since they were known."""

    def __init__(self, database: Database, forget: Callable[[int], Awaitable[None]]) -> None:
        self._database = database
        self._forget = forget
        self._by_id: dict[int, AccountChoice] = {}
        self._by_owner: dict[tuple[str, int | None], list[AccountChoice]] = {}
        self._providers: set[str] = set()
        self._names: dict[int, str] = {}
        self._seen: dict[int, datetime] = {}
        self._since: datetime | None = None
        self._reading = asyncio.Lock()

    def has_any(self, provider: str) -> bool:
        """Return whether a provider has other accounts than that of the environment, also of removed ones."""
        return provider in self._providers

    def choose(self, organization_id: int, provider: str, name: str | None) -> int | None:
        """Return the row key of the account that a task is to use, None for that of the environment.

        With a name it is that account, the organization's own before everyone's. Without one it is the organization's
        default, else everyone's, else the environment's. Raises `BadRequest` for a name that it may not use.
        """
        own, all = self._of(provider, organization_id), self._of(provider, None)
        if name is None:
            return next((each.id for each in (*own, *all) if each.is_default), None)
        found = next((each.id for each in (*own, *all) if each.name == name), None)
        if found is None and name != ENVIRONMENT:
            raise BadRequest(_unknown(name, provider, (*own, *all)), code="unknown_account", param="account")
        return found

    def is_known(self, organization_id: int, provider: str, name: str | None) -> bool:
        """Return whether `choose` would find the account of this name."""
        try:
            self.choose(organization_id, provider, name)
        except BadRequest:
            return False
        return True

    def is_own(self, organization_id: int, account_id: int | None) -> bool:
        """Return whether an account belongs to the organization alone."""
        account = None if account_id is None else self._by_id.get(account_id)
        return account is not None and account.organization_id == organization_id

    async def names(self, account_ids: Iterable[int | None]) -> dict[int | None, str | None]:
        """Return the names of accounts by their row keys, also of removed ones; None for that of the environment.

        They are read only if another process has just added one. Raises `StorageUnavailable`.
        """
        wanted = set(account_ids)
        if not wanted <= {None, *self._names}:
            await self.refresh()
        return {key: None if key is None else self._names.get(key) for key in wanted}

    async def refresh(self) -> None:
        """Read what has changed, at the start and after a change. Raises `StorageUnavailable`."""
        async with self._reading:
            rows = await self._database.read(accounts_changed_since(self._since))
            changed = [row for row in rows if self._seen.get(row["id"]) != row["updated_at"]]
            for row in changed:
                self._providers.add(row["provider"])
                self._names[row["id"]] = row["name"]
                if row["removed_at"] is None:
                    values = {name: row[name] for name in AccountChoice.__struct_fields__}
                    self._by_id[row["id"]] = AccountChoice(**values)
                else:
                    self._by_id.pop(row["id"], None)
            if rows:
                newest = max(row["updated_at"] for row in rows) - _OVERLAP
                self._since = newest if self._since is None else max(newest, self._since)
            if changed:
                self._sort()
            for row in changed:
                await self._forget(row["id"])
                # Only now: what is interrupted here is read and forgotten again.
                self._seen[row["id"]] = row["updated_at"]

    async def run(self) -> None:
        """Read changes again and again: another process may have made them."""
        for number in count(1):
            await asyncio.sleep(EVERY_SECONDS)
            if number % _ALL_EVERY == 0:
                self._since = None
            await self.refresh()

    def _of(self, provider: str, organization_id: int | None) -> list[AccountChoice]:
        return self._by_owner.get((provider, organization_id), [])

    def _sort(self) -> None:
        self._by_owner = {}
        for each in sorted(self._by_id.values(), key=lambda account: account.id):
            self._by_owner.setdefault((each.provider, each.organization_id), []).append(each)


def _unknown(name: str, provider: str, usable: Iterable[AccountChoice]) -> str:
    names = sorted({*(each.name for each in usable), ENVIRONMENT})
    similar = get_close_matches(name, names, n=_MOST_NAMES) or names[:_MOST_NAMES]
    return f"no account of {provider} that you may use is named {name[:80]!r}; use {' or '.join(similar)}"
