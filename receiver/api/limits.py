"""Rate limits of API keys: one token bucket per key, in this process alone. N replicas allow N times the rate."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from receiver.clock import wall_now
from receiver.errors import RateLimited

_MOST_KEYS = 10_000
"""How many buckets are kept. With more keys, those that were unused for longest start with a full bucket again."""
_SECOND = 1_000_000_000
"""Time is counted in whole nanoseconds, so that the rounding of many small steps does not add up."""


@dataclass(frozen=True, slots=True)
class KeyLimit:
    """`burst` requests at once, and one more every `interval` nanoseconds."""

    burst: int
    interval: int

    @classmethod
    def of(cls, requests: float, seconds: float = 1.0) -> "KeyLimit":
        """Return the limit of `requests` in `seconds`, which may all be made at once."""
        return cls(max(1, math.ceil(requests)), max(1, round(seconds * _SECOND / requests)))


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """The state of a key's limit after a request.

    `remaining` is how many requests may follow now; `reset_at` is the unix second in which the bucket is full again;
    `retry_after` is the seconds until the next request is allowed, if this one was not.
    """

    limit: int
    remaining: int
    reset_at: int
    retry_after: int | None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that report it to the client (`receiver/api/CONTRACTS.md`, "Pi")."""
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset_at),
        }

    def check(self) -> None:
        """Raise `RateLimited` if the request exceeded the limit."""
        if self.retry_after is not None:
            raise RateLimited(
                f"the key's rate limit (bursts of {self.limit}) is used up: try again in {self.retry_after} s",
                retry_after=self.retry_after,
            )


class KeyLimits:
    """Counts the requests of each key. `default` is for keys without their own limit; `clock` is monotonic, in ns.

    Of each key one time is kept: when its bucket will be full again.
    """

    def __init__(self, default: KeyLimit, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._default = default
        self._clock = clock
        self._full_at: OrderedDict[int, int] = OrderedDict()

    def take(self, key_id: int, rate_limit: float | None) -> LimitStatus:
        """Count a request, unless it exceeds the limit; `rate_limit` is the key's own, in requests per second."""
        limit = self._default if rate_limit is None else KeyLimit.of(rate_limit)
        now = self._clock()
        full_at = max(now, self._full_at.get(key_id, now))
        early_by = full_at - now - (limit.burst - 1) * limit.interval
        if early_by <= 0:
            full_at += limit.interval
            self._keep(key_id, full_at)
        return LimitStatus(
            limit=limit.burst,
            remaining=(limit.burst * limit.interval - (full_at - now)) // limit.interval,
            reset_at=math.ceil(wall_now().timestamp() + (full_at - now) / _SECOND),
            retry_after=None if early_by <= 0 else math.ceil(early_by / _SECOND),
        )

    def _keep(self, key_id: int, full_at: int) -> None:
        self._full_at[key_id] = full_at
        self._full_at.move_to_end(key_id)
        if len(self._full_at) > _MOST_KEYS:
            self._full_at.popitem(last=False)
