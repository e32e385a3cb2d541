"""How many administrative changes an organization may make: each leaves an entry in the audit log, for a year."""

import math
import time
from collections.abc import Callable

from receiver.domain.pace import Pace
from receiver.errors import RateLimited

MOST_AT_ONCE = 10_000
SECONDS_EACH = 0.1
"""One more every tenth of a second: 864,000 entries a day, about 500 MB, are the most that a tenant can leave."""


class ChangeLimit:
    """Counts the changes of each organization in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paces: dict[int, Pace] = {}

    def take(self, organization_id: int) -> None:
        """Count a change. Raises `RateLimited` if the organization has made too many."""
        now, pace = self._clock(), self._paces.get(organization_id)
        if pace is None:
            pace = self._paces[organization_id] = Pace(1 / SECONDS_EACH, (MOST_AT_ONCE - 1) * SECONDS_EACH)
        if (wait := pace.ready_at(now) - now) > 0:
            raise RateLimited(
                f"more than {MOST_AT_ONCE} changes of webhooks, keys and deliveries in a short time: try again later",
                retry_after=math.ceil(wait),
            )
        pace.spend(now)
