"""Watches for what only this process sees and an operator should know: providers that refuse or pause, and outages."""

import asyncio
from collections.abc import Mapping
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
"""A type of system event, and the provider that it is about."""


class WatchedProvider(Protocol):
    """What is watched of a provider."""

    def key_refusal(self) -> str | None:
        """Return why the provider refused Ringback's own key at the last call; None if it did not."""
        ...

    def paused_for(self) -> float:
        """Return the seconds until the end of the pause that the provider asked for; 0 if there is none."""
        ...


class SystemWatcher:
    """Looks at the providers and the writer of this process, every `every_seconds`."""

    def __init__(
        self,
        writer: Writer,
        providers: Mapping[str, WatchedProvider],
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
        self._seen: dict[Condition, float] = {}
        """When the database was last asked about each condition, and when each was last seen, by the loop's clock."""

    async def run(self) -> None:
        """Look at intervals until cancelled."""
        # What was told before this start is over if it is not seen again.
        now = asyncio.get_running_loop().time()
        self._seen = {(type, name): now for name in self._providers for type in _OF_PROVIDERS}
        while True:
            await asyncio.sleep(self._every)
            await self.look()

    async def look(self) -> None:
        """Look once: tell what lasts, and an outage that is over; forget what was not seen for long."""
        for name, provider in self._providers.items():
            seconds, refusal = provider.paused_for(), provider.key_refusal()
            if seconds >= PAUSED_SECONDS:
                await self._tell((EventType.PROVIDER_PAUSED, name), provider_paused(name, seconds, utc_now()))
            if refusal is not None:
                await self._tell((EventType.PROVIDER_UNAUTHORIZED, name), provider_unauthorized(name, refusal))
        await self._end_conditions()
        await self._tell_outage()

    async def _tell(self, condition: Condition, data: dict[str, Any]) -> None:
        loop_now, now = asyncio.get_running_loop().time(), utc_now()
        self._seen[condition] = loop_now
        if loop_now - self._asked.get(condition, -_ASKED_AGAIN_SECONDS) < _ASKED_AGAIN_SECONDS:
            return
        told = await self._writer.run(
            lambda tx: self._system_events.tell_account_owners(tx, *condition, data, now), bounded=False
        )
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
