"""How much each API key may ask: a token bucket a key, in this process alone. N replicas allow N times as much."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from receiver.errors import RateLimited

_MOST_KEYS = 10_000
"""Buckets that are remembered; of more keys at once, those that were not used for longest begin afresh."""
_SECOND = 1_000_000_000
"""Time is counted in whole nanoseconds: thousands of small steps must not add up to a wrong one."""


@dataclass(frozen=True, slots=True)
class KeyLimit:
    """`burst` requests at once, and one more each `interval` nanoseconds."""

    burst: int
    interval: int

    @classmethod
    def of(cls, requests: float, seconds: float = 1.0) -> "KeyLimit":
        """Return the allowance of so many requests in so many seconds, which may come all at once."""
        return cls(max(1, math.ceil(requests)), max(1, round(seconds * _SECOND / requests)))


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """Where a key stands after a request: what is left now, and the unix second in which all of it is there again.

    `retry_after` is the seconds until the next one may come, where this one was too many.
    """

    limit: int
    remaining: int
    reset_at: int
    retry_after: int | None

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that tell the client (contracts/pi.md)."""
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset_at),
        }

    def check(self) -> None:
        """Raise `RateLimited` if the request was one too many."""
        if self.retry_after is not None:
            raise RateLimited(
                f"this key may ask {self.limit} times at once, and has; try again in {self.retry_after} s",
                retry_after=self.retry_after,
            )


class KeyLimits:
    """Counts the requests of each key. `default` is for keys with no limit of their own; `clock` is monotonic, in ns.

    Of each key one moment is remembered: that in which its bucket is full again.
    """

    def __init__(self, default: KeyLimit, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._default = default
        self._clock = clock
        self._full_at: OrderedDict[int, int] = OrderedDict()

    def take(self, key_id: int, rate_limit: float | None) -> LimitStatus:
        """Count a request of a key, unless it is one too many; `rate_limit` is the key's own, in requests a second."""
        allowance = self._default if rate_limit is None else KeyLimit.of(rate_limit)
        now = self._clock()
        full_at = max(now, self._full_at.get(key_id, now))
        too_soon = full_at - now - (allowance.burst - 1) * allowance.interval
        if too_soon <= 0:
            full_at += allowance.interval
            self._remember(key_id, full_at)
        return LimitStatus(
            limit=allowance.burst,
            remaining=(allowance.burst * allowance.interval - (full_at - now)) // allowance.interval,
            reset_at=math.ceil(time.time() + (full_at - now) / _SECOND),
            retry_after=None if too_soon <= 0 else math.ceil(too_soon / _SECOND),
        )

    def _remember(self, key_id: int, full_at: int) -> None:
        self._full_at[key_id] = full_at
        self._full_at.move_to_end(key_id)
        if len(self._full_at) > _MOST_KEYS:
            self._full_at.popitem(last=False)
