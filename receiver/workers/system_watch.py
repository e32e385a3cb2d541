"""Watches for what only this process sees and an operator should know: providers that refuse or pause, and outages."""

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

from models import EventType
from receiver.clock import utc_now
from receiver.domain.system_events import (
    PAUSED_SECONDS,
    provider_paused,
    provider_unauthorized,
    storage_unavailable,
)
from receiver.events.system import SystemEvents
from receiver.storage.system import end_conditions
from receiver.storage.transaction import Transaction
from receiver.storage.writer import Writer
from receiver.telemetry.log import get_logger

log = get_logger("workers.system_watch")

EVERY_SECONDS = 2.0
OVER_AFTER_SECONDS = 600.0
"""A condition is over when it was not seen for this long: a provider may ask for one pause after the other."""
_ASKED_AGAIN_SECONDS = 3600.0
"""While a condition lasts, the database is asked this often whether it is to be told."""
_SHORTEST_OUTAGE_SECONDS = 1.0
_OF_PROVIDERS = (EventType.PROVIDER_PAUSED, EventType.PROVIDER_UNAUTHORIZED)

Condition = tuple[EventType, str]
"""A type of system event, and what it is about: a provider, or an account there by its id."""


class WatchedProvider(Protocol):
    """What is watched of a provider."""

    def key_refusal(self) -> str | None:
        """Return why the provider refused Ringback's own key at the last call; None if it did not."""
        ...

    def paused_for(self) -> float:
        """Return the seconds until the end of the pause that the provider asked for; 0 if there is none."""
        ...


class WatchedAccount(Protocol):
    """What is known of an account of the database: `organization_id` is None for everyone's."""

    @property
    def provider(self) -> str:
        """The name of the provider."""
        ...

    @property
    def name(self) -> str:
        """The name of the account."""
        ...

    @property
    def uid(self) -> str:
        """The id of the account."""
        ...

    @property
    def organization_id(self) -> int | None:
        """The row key of the organization."""
        ...


class WatchedProviders(Protocol):
    """The providers, by their names, and the accounts of the database that this process calls."""

    def items(self) -> Iterable[tuple[str, WatchedProvider]]:
        """Return the providers with the accounts of the environment."""
        ...

    def accounts(self) -> Iterable[tuple[WatchedAccount, WatchedProvider]]:
        """Return the accounts of the database."""
        ...


class SystemWatcher:
    """Looks at the providers and the writer of this process, every `every_seconds`.

    What concerns an account of an organization's own is told to that organization alone.
    """

    def __init__(
        self,
        writer: Writer,
        providers: WatchedProviders,
        system_events: SystemEvents,
        *,
        every_seconds: float = EVERY_SECONDS,
        over_after_seconds: float = OVER_AFTER_SECONDS,
    ) -> None:
        self._writer = writer
        self._providers = providers
        self._system_events = system_events
        self._every = every_seconds
        self._over_after = over_after_seconds
        self._asked: dict[Condition, float] = {}
        self._accounts: set[str] = set()
        self._seen: dict[Condition, float] = {}
        """When the database was last asked about each condition, and when each was last seen, by the loop's clock."""

    async def run(self) -> None:
        """Look at intervals until cancelled."""
        # What was told before this start is over if it is not seen again.
        now = asyncio.get_running_loop().time()
        self._seen = {(type, name): now for name, _ in self._providers.items() for type in _OF_PROVIDERS}
        while True:
            await asyncio.sleep(self._every)
            await self.look()

    async def look(self) -> None:
        """Look once: tell what lasts, and an outage that is over; forget what was not seen for long."""
        for name, provider in self._providers.items():
            await self._look_at(name, provider, {"provider": name}, None)
        for account, provider in list(self._providers.accounts()):
            subject = f"{account.provider}/{account.uid}"
            if subject not in self._accounts:  # as at the start: what was told before is over if it is not seen again
                now = asyncio.get_running_loop().time()
                self._seen |= {(type, subject): now for type in _OF_PROVIDERS}
                self._accounts.add(subject)
            named = {"provider": account.provider, "account": account.name}
            await self._look_at(subject, provider, named, account.organization_id)
        await self._end_conditions()
        await self._tell_outage()

    async def _look_at(self, subject: str, provider: WatchedProvider, named: dict[str, Any], owner: int | None) -> None:
        """Tell what lasts of a provider, or of an account there, to its owner; None for those of everyone's."""
        seconds, refusal, name = provider.paused_for(), provider.key_refusal(), named["provider"]
        if seconds >= PAUSED_SECONDS:
            data = {**provider_paused(name, seconds, utc_now()), **named}
            await self._tell((EventType.PROVIDER_PAUSED, subject), data, owner)
        if refusal is not None:
            data = {**provider_unauthorized(name, refusal), **named}
            await self._tell((EventType.PROVIDER_UNAUTHORIZED, subject), data, owner)

    async def _tell(self, condition: Condition, data: dict[str, Any], owner: int | None) -> None:
        loop_now, now = asyncio.get_running_loop().time(), utc_now()
        self._seen[condition] = loop_now
        if loop_now - self._asked.get(condition, -_ASKED_AGAIN_SECONDS) < _ASKED_AGAIN_SECONDS:
            return

        async def tell(tx: Transaction) -> bool:
            if owner is not None:
                return await self._system_events.tell(tx, *condition, owner, data, now)
            return await self._system_events.tell_account_owners(tx, *condition, data, now)

        told = await self._writer.run(tell, bounded=False)
        self._asked[condition] = loop_now
        if told:
            log.warning("provider condition began", condition=condition[0], **data)

    async def _end_conditions(self) -> None:
        now = asyncio.get_running_loop().time()
        for condition in [each for each, seen_at in self._seen.items() if now - seen_at >= self._over_after]:
            await self._end(*condition)
            del self._seen[condition]
            if self._asked.pop(condition, None) is not None:
                log.info("provider condition ended", condition=condition[0], provider=condition[1])

    async def _end(self, type: EventType, provider: str) -> None:
        await self._writer.run(lambda tx: end_conditions(tx, type, [provider]), bounded=False)

    async def _tell_outage(self) -> None:
        outage = self._writer.take_outage()
        if outage is None or (outage.until - outage.since).total_seconds() < _SHORTEST_OUTAGE_SECONDS:
            return
        data, now = storage_unavailable(outage.since, outage.until), utc_now()
        log.warning("storage was unavailable", **data)
        await self._writer.run(
            lambda tx: self._system_events.tell_operator(tx, EventType.STORAGE_UNAVAILABLE, data, now), bounded=False
        )
