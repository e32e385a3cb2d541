"""How many live idempotency keys each organization has, of which it may have a limited number.

They are counted in the background, by an index, and those that are made after a count are added. So a request waits for
no count. An organization is never refused before its limit, and may exceed it by as many keys as it makes during a
count.
"""

import asyncio
import time
from collections.abc import Callable

from msgspec import Struct

from receiver.clock import utc_now
from receiver.errors import OrganizationRateLimited, Unavailable
from receiver.organization_limits import OrganizationLimits
from receiver.storage.database import Database
from receiver.storage.organizations import count_idempotency_keys
from receiver.telemetry.log import get_logger

log = get_logger("api.idempotency_counts")

_COUNT_SECONDS = 60.0
"""How often the keys of an organization are counted that makes some."""
_NEAR_LIMIT_SECONDS = 5.0
"""The same for one near its limit, whose oldest keys end."""
_NEAR = 0.9
_SHARE = 20
"""The time between two counts, in times of what a count took: many keys take seconds."""
_RETRY_AFTER_SECONDS = 60


class _Count(Struct):
    """`made` are those since the count ended; `due` is when they are counted again."""

    counted: int = 0
    made: int = 0
    due: float = float("-inf")
    counting: "asyncio.Task[None] | None" = None


class KeyCounts:
    """Counts the live keys of each organization; `limits_of` returns the limits of one by its row key."""

    def __init__(self, database: Database, limits_of: Callable[[int], OrganizationLimits]) -> None:
        self._database = database
        self._limits_of = limits_of
        self._counts: dict[int, _Count] = {}

    def refusal(self, organization_id: int) -> OrganizationRateLimited | None:
        """Return the error for a new key of the organization if it has as many as it may have, else None."""
        limit = self._limits_of(organization_id).idempotency_keys
        if limit is None:
            return None
        count = self._counts.setdefault(organization_id, _Count())
        if count.counting is None and time.monotonic() >= count.due:
            count.counting = asyncio.create_task(self._count(organization_id, count, limit))
        if count.counted + count.made < limit:
            return None
        return OrganizationRateLimited(
            f"the organization has {limit} Idempotency-Keys of the last 24 hours, as many as it may have "
            "(idempotency_keys): send the request again when the oldest have ended, or without a key",
            param="idempotency_keys",
            retry_after=_RETRY_AFTER_SECONDS,
        )

    def note(self, organization_id: int) -> None:
        """Note that the organization has a new key."""
        if (count := self._counts.get(organization_id)) is not None:
            count.made += 1

    async def _count(self, organization_id: int, count: _Count, limit: int) -> None:
        began = time.monotonic()
        try:
            rows = await self._database.read(count_idempotency_keys(organization_id, utc_now(), limit + 1))
            count.counted, count.made = rows[0]["count"], 0  # what was made meanwhile may be in both
        except Unavailable as error:
            log.warning("idempotency keys not counted", error_code=error.code, error=error.message)
        finally:
            took = time.monotonic() - began
            is_near = count.counted + count.made >= limit * _NEAR
            wait = _NEAR_LIMIT_SECONDS if is_near else _COUNT_SECONDS
            count.due, count.counting = time.monotonic() + max(wait, took * _SHARE), None
