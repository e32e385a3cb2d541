"""Rate limits of API keys: one token bucket per key. Where several processes serve, each has its part of the bucket.

The parts follow the requests that each process gets (`receiver.domain.limit_parts`). A key that uses little of its
limit in this process is not shared, so that the parts of few keys have to be exchanged.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from receiver.clock import wall_now
from receiver.domain.limit_parts import Part, whole
from receiver.errors import RateLimited

_MOST_KEYS = 10_000
"""How many buckets are kept. With more keys, those that were unused for longest start with a full bucket again."""
_SECOND = 1_000_000_000
"""Time is counted in whole nanoseconds, so that the rounding of many small steps does not add up."""
_UNSHARED = 1 / 16
"""A key is shared once this process gets more than this fraction of what its limit allows."""
_LONGEST_WINDOW = 60 * _SECOND


class KeyLimit(Struct, frozen=True):
    """`burst` requests at once, and one more every `interval` nanoseconds."""

    burst: int
    interval: int

    @classmethod
    def of(cls, requests: float, seconds: float = 1.0) -> "KeyLimit":
        """Return the limit of `requests` in `seconds`, which may all be made at once."""
        return cls(max(1, math.ceil(requests)), max(1, round(seconds * _SECOND / requests)))

    def part(self, part: float) -> "KeyLimit":
        """Return this part of the limit (above 0 and at most 1), with a burst of at least one request."""
        return KeyLimit(max(1, int(self.burst * part)), round(self.interval / part))


class LimitStatus(Struct, frozen=True):
    """The state of a key's limit after a request.

    `limit` is the most requests at once, all processes together; `remaining` is how many may follow now in this
    process; `reset_at` is the unix second in which its bucket is full again; `retry_after` is the seconds until the
    next request is allowed, if this one was not.
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


class _Bucket:
    """What this process allows of one key's limit, and how many requests it gets. All times are in nanoseconds."""

    __slots__ = (
        "_allowed",
        "_count",
        "_earlier",
        "_full_at",
        "_limit",
        "_look_at",
        "_look_count",
        "_window",
        "_window_end",
    )

    def __init__(self, limit: KeyLimit, now: int) -> None:
        self._limit = limit
        self._allowed = limit
        """This process's part of the limit."""
        self._full_at = now
        """When the bucket will be full again."""
        self._window = min(max(_SECOND, limit.burst * limit.interval), _LONGEST_WINDOW)
        """Requests are counted for this long to see how busy the key is."""
        self._window_end = now + self._window
        self._count = self._earlier = 0
        """The requests of the present window, and of the one before."""
        self._look_later(now)

    def take(self, key_id: int, now: int, part: Part) -> LimitStatus:
        """Count a request, unless it exceeds the limit."""
        self._count += 1
        if now >= self._look_at or self._count >= self._look_count:
            self._look(key_id, now, part)
        burst, interval = self._allowed.burst, self._allowed.interval
        full_at = max(now, self._full_at)
        early_by = full_at - now - (burst - 1) * interval
        if early_by <= 0:
            self._full_at = full_at = full_at + interval
        return LimitStatus(
            limit=self._limit.burst,
            remaining=(burst * interval - (full_at - now)) // interval,
            reset_at=math.ceil(wall_now().timestamp() + (full_at - now) / _SECOND),
            retry_after=None if early_by <= 0 else math.ceil(early_by / _SECOND),
        )

    def _look(self, key_id: int, now: int, part: Part) -> None:
        """See how busy the key is, and take the part of its limit that is this process's now."""
        if now >= self._window_end:
            self._earlier = self._count - 1 if now < self._window_end + self._window else 0
            self._window_end, self._count = now + self._window, 1
        wanted = max(self._earlier, self._count)
        seconds = self._window / _SECOND
        is_shared = wanted * self._limit.interval >= _UNSHARED * self._window
        share = part(f"key:{key_id}", wanted / seconds, 1 + seconds) if is_shared else 1.0
        self._allow(self._limit.part(share), now)
        self._look_later(now)

    def _look_later(self, now: int) -> None:
        """Look again in a second, or when the requests have doubled."""
        self._look_at = now + _SECOND
        self._look_count = max(1, 2 * self._count, math.ceil(_UNSHARED * self._window / self._limit.interval))

    def _allow(self, allowed: KeyLimit, now: int) -> None:
        """Change the part: the requests that were made count on, as far as they fit into the new bucket."""
        if allowed != self._allowed:
            until_full = max(0, self._full_at - now) * allowed.interval // self._allowed.interval
            self._full_at = now + min(until_full, allowed.burst * allowed.interval)
            self._allowed = allowed


class KeyLimits:
    """Counts the requests of each key. `default` is for keys without their own limit; `clock` is monotonic, in ns.

    `part` tells this process's part of a key's limit, which is named `key:<row key>`. It is asked once a second, and
    each time that the key's requests have doubled.
    """

    def __init__(self, default: KeyLimit, clock: Callable[[], int] = time.monotonic_ns, part: Part = whole) -> None:
        self._default = default
        self._clock = clock
        self._part = part
        self._buckets: OrderedDict[int, tuple[float | None, _Bucket]] = OrderedDict()
        """By key: its own limit, and the bucket that was made for it."""

    def take(self, key_id: int, rate_limit: float | None) -> LimitStatus:
        """Count a request, unless it exceeds the limit; `rate_limit` is the key's own, in requests per second."""
        now = self._clock()
        kept = self._buckets.get(key_id)
        if kept is None or kept[0] != rate_limit:
            kept = self._new(key_id, rate_limit, now)
        else:
            self._buckets.move_to_end(key_id)
        return kept[1].take(key_id, now, self._part)

    def _new(self, key_id: int, rate_limit: float | None, now: int) -> tuple[float | None, _Bucket]:
        limit = self._default if rate_limit is None else KeyLimit.of(rate_limit)
        kept = self._buckets[key_id] = (rate_limit, _Bucket(limit, now))
        if len(self._buckets) > _MOST_KEYS:
            self._buckets.popitem(last=False)
        return kept
