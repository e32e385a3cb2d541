"""A rate as a time: when the next of something may begin that may happen so often a second."""

import math


class Pace:
    """At most `rate` a second (None: any number, 0: none), and `burst` seconds' worth at once.

    It is the virtual scheduling form of a token bucket. `now` is in seconds of a monotonic clock. `spend` may be called
    also before `ready_at`: what was spent too early is waited for afterwards.
    """

    def __init__(self, rate: float | None, burst: float = 1.0) -> None:
        self.rate = rate
        self._burst = burst
        self._spent_until = -math.inf

    def ready_at(self, now: float) -> float:
        """Return when the next may begin, `now` if at once, infinity if none may."""
        if self.rate is None:
            return now
        return math.inf if self.rate == 0 else max(now, self._spent_until - self._burst)

    def spend(self, now: float, cost: float = 1.0) -> None:
        """Count one, or what counts as `cost` of them."""
        if self.rate:
            self._spent_until = max(self._spent_until, now) + cost / self.rate

    def take_back(self) -> None:
        """Take one back that was counted and did not happen."""
        if self.rate:
            self._spent_until -= 1 / self.rate

    def is_unspent(self, now: float) -> bool:
        """Return whether nothing has to be remembered."""
        return self._spent_until <= now
