"""The adapters of this process: by the provider's name those of the environment, by their keys those of the database.

An adapter is made when it is first needed, and one of the database's again when its account has changed. What is under
way goes on with the one that it began with, which is closed when no call can be open any more.
"""

import asyncio
from collections.abc import Awaitable, Callable, ItemsView, Iterator, Mapping, ValuesView
from time import monotonic
from typing import Protocol, cast

from receiver.errors import NotFound
from receiver.providers.accounts import ProviderAccount
from receiver.providers.base import ForwardingProvider, Provider
from receiver.providers.capabilities import Capabilities

ReadAccount = Callable[[int], Awaitable[ProviderAccount | None]]
"""Returns the account of the database with this row key, None if there is none."""
MakeAdapter = Callable[[ProviderAccount], Provider]


class Described(Protocol):
    """What is known of a provider without an account there."""

    capabilities: Capabilities
    credential_names: tuple[str, ...]
    optional_credentials: tuple[str, ...]


class Providers(Mapping[str, Provider]):
    """The adapters: as a mapping, those of the environment's accounts, by the names of all providers.

    `values` and `items` are of those that have been made: `made` at the start. `make` makes one for an account;
    `described` has all providers but those, and may read each when it is first asked for; `environment` has the
    accounts that the environment describes; `call_seconds` is how long a call takes at most. `connect` says where the
    accounts of the database are read from.
    """

    def __init__(
        self,
        made: Mapping[str, Provider],
        make: MakeAdapter | None = None,
        *,
        described: Mapping[str, Described] | None = None,
        environment: Mapping[str, ProviderAccount] | None = None,
        call_seconds: float = 600.0,
    ) -> None:
        self._made = dict(made)
        self._make = make
        self._described = described or {}
        self._environment = environment or {}
        self._names = tuple(dict.fromkeys((*made, *sorted(self._described))))
        self._call_seconds = call_seconds
        self._read: ReadAccount | None = None
        self._by_key: dict[int, Provider] = {}
        self._accounts: dict[int, ProviderAccount] = {}
        self._reading: dict[int, asyncio.Future[Provider]] = {}
        self._replaced: list[tuple[float, Provider]] = []

    def __getitem__(self, name: str) -> Provider:
        if name not in self._made:
            if name not in self._described or self._make is None:
                raise KeyError(name)
            self._made[name] = self._make(self.environment(name))
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._made or name in self._described

    def values(self) -> ValuesView[Provider]:
        """Return those that have been made."""
        return dict(self._made).values()

    def items(self) -> ItemsView[str, Provider]:
        """Return those that have been made, by name."""
        return dict(self._made).items()

    @property
    def piapi(self) -> ForwardingProvider:
        """PiAPI's adapter, to which other requests are passed on too."""
        return cast(ForwardingProvider, self["piapi"])

    def described(self, name: str) -> Described:
        """Return what is known of a provider. Raises `KeyError`."""
        # PiAPI's adapter says of itself what the APIs say of the others.
        return self._described[name] if name in self._described else cast(Described, self._made[name])

    def capabilities(self, name: str) -> Capabilities:
        """Return what a provider can do. Raises `KeyError`."""
        return self._made[name].capabilities if name in self._made else self._described[name].capabilities

    def least_poll_seconds(self, name: str) -> float:
        """Return how far apart looks at one task must be; 0 for a provider that is not described any more."""
        return (self.capabilities(name).least_poll_seconds or 0.0) if name in self else 0.0

    def environment(self, name: str) -> ProviderAccount:
        """Return the account that the environment describes at a provider; without credentials if it describes none."""
        return self._environment.get(name) or ProviderAccount(provider=name)

    def of_account(self, account: ProviderAccount) -> Provider:
        """Return a new adapter of an account, which the caller closes. Raises `NotFound`."""
        if self._make is None or account.provider not in self:
            raise NotFound(f"no provider is named {account.provider!r} any more", code="provider_not_found")
        return self._make(account)

    def connect(self, read: ReadAccount) -> None:
        """Have accounts read with `read`."""
        self._read = read

    async def of(self, provider: str, account_id: int | None) -> Provider:
        """Return the adapter of an account: that of the environment for None.

        Raises `Unavailable`, and `NotFound` for a provider that is not described any more.
        """
        if account_id is None:
            if provider not in self:
                raise NotFound(f"no provider is named {provider!r} any more", code="provider_not_found")
            return self[provider]
        known = self._by_key.get(account_id)
        return known if known is not None else await self._load(account_id)

    def known(self, provider: str, account_id: int | None) -> Provider | None:
        """Return the adapter of an account if this process has it already."""
        return self._made.get(provider) if account_id is None else self._by_key.get(account_id)

    def adapters(self) -> Iterator[Provider]:
        """Return all adapters that this process has."""
        yield from self.values()
        yield from self._by_key.values()

    def accounts(self) -> list[tuple[ProviderAccount, Provider]]:
        """Return the accounts of the database that this process has adapters of, with these."""
        return [(self._accounts[key], adapter) for key, adapter in self._by_key.items()]

    async def forget(self, account_id: int) -> None:
        """Have the adapter of an account made again when it is needed; close those that are not in use any more."""
        adapter = self._by_key.pop(account_id, None)
        self._accounts.pop(account_id, None)
        self._reading.pop(account_id, None)  # it may have been read before the change
        now = monotonic()
        if adapter is not None:
            self._replaced.append((now, adapter))
        while self._replaced and now - self._replaced[0][0] > self._call_seconds:
            await self._replaced.pop(0)[1].aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        for adapter in [*self.adapters(), *(each for _, each in self._replaced)]:
            await adapter.aclose()

    async def _load(self, account_id: int) -> Provider:
        """Read an account and make its adapter; callers at the same time share the work."""
        reading = self._reading.get(account_id)
        if reading is None:
            reading = self._reading[account_id] = asyncio.ensure_future(self._read_and_make(account_id))
        return await asyncio.shield(reading)

    async def _read_and_make(self, account_id: int) -> Provider:
        own = asyncio.current_task()
        try:
            account = None if self._read is None else await self._read(account_id)
            if account is None:
                raise NotFound(f"the provider's account {account_id} is not in the database", code="account_not_found")
            adapter = self.of_account(account)
            if self._reading.get(account_id) is own:
                self._by_key[account_id], self._accounts[account_id] = adapter, account
            else:  # it has changed meanwhile: of use for the calls that wait, and for no other
                self._replaced.append((monotonic(), adapter))
            return adapter
        finally:
            if self._reading.get(account_id) is own:
                del self._reading[account_id]
