"""How many administrative changes an organization may make: each leaves an entry in the audit log, for a year."""

import math
import time
from collections.abc import Callable

from receiver.errors import RateLimited

MOST_AT_ONCE = 10_000
SECONDS_EACH = 0.1
"""One more every tenth of a second: 864,000 entries a day, about 500 MB, are the most that a tenant can leave."""


class ChangeLimit:
    """Counts the changes of each organization in this process. Of each, one time is kept: when it may do all again."""

    def __init__(self, most: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._given = most
        self._clock = clock
        self._free_at: dict[int, float] = {}

    def take(self, organization_id: int) -> None:
        """Count a change. Raises `RateLimited` if the organization has made too many."""
        now, most = self._clock(), MOST_AT_ONCE if self._given is None else self._given
        free_at = max(now, self._free_at.get(organization_id, now)) + SECONDS_EACH
        early_by = free_at - now - most * SECONDS_EACH
        if early_by > 0:
            raise RateLimited(
                f"more than {most} changes of webhooks, keys and deliveries in a short time: try again later",
                retry_after=math.ceil(early_by),
            )
        self._free_at[organization_id] = free_at
