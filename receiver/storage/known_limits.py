"""The limits of every organization in memory, so that asking for them costs no query."""

import asyncio
from collections.abc import Mapping
from typing import Any

from receiver.organization_limits import OrganizationLimits
from receiver.storage.database import Database
from receiver.storage.organizations import set_limits
from receiver.telemetry.log import get_logger

log = get_logger("storage.known_limits")

EVERY_SECONDS = 1.5
"""How often the limits are read: about how late a change by another process is known at most."""


class KnownLimits:
    """The limits that are set, and `defaults` for all others."""

    def __init__(self, database: Database, defaults: OrganizationLimits) -> None:
        self._database = database
        self._defaults = defaults
        self._own: dict[int, OrganizationLimits] = {}

    def of(self, organization_id: int) -> OrganizationLimits:
        """Return the limits of the organization with this row key."""
        return self._own.get(organization_id, self._defaults)

    async def refresh(self) -> None:
        """Read the limits, at the start and after a change. Raises `StorageUnavailable`; those known before stay."""
        rows = await self._database.read(set_limits())
        self._own = {row["id"]: self._read(row) for row in rows}

    async def run(self) -> None:
        """Read the limits again and again: another process may have changed them."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self.refresh()

    def _read(self, row: Mapping[str, Any]) -> OrganizationLimits:
        try:
            return self._defaults.with_values(row["limits"])
        except ValueError as error:  # written by a later version
            if self._own.get(row["id"]) is not self._defaults:
                log.warning("limits of an organization not understood", organization=row["uid"], error=str(error))
            return self._defaults
