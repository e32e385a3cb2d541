"""How often a provider may be called: a token bucket that waiters leave in the order they came."""

import asyncio
import math

LONGEST_PAUSE = 300.0
"""Seconds; a provider that asks for more is asked again by then."""
_WHOLE = 1 - 1e-6
"""A token, as far as rounding can tell: a clock that cannot show the rest of the wait would be asked for ever."""


class Budget:
    """At most `calls_per_second` on average, and `burst` at once (by default one second's worth).

    It belongs to one event loop at a time, whose monotonic clock it reads.
    """

    def __init__(self, calls_per_second: float, burst: int | None = None) -> None:
        if not (0 < calls_per_second < math.inf):
            raise ValueError("calls_per_second must be a number above 0")
        if burst is not None and burst < 1:
            raise ValueError("burst must be at least 1")
        self._rate = calls_per_second
        self._burst = float(burst if burst is not None else max(1, math.ceil(calls_per_second)))
        self._tokens = self._burst
        self._counted_at = -math.inf
        self._paused_until = -math.inf
        self._turn = asyncio.Lock()

    async def acquire(self) -> None:
        """Wait for a token and take it. First come, first served; a cancelled waiter takes none."""
        # The lock is the queue: asyncio wakes its waiters in order, and only the first of them sleeps. No event
        # could signal a token: its time is known, until a pause moves it.
        clock = asyncio.get_running_loop().time
        async with self._turn:
            while (wait := self._wait(clock())) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait)
            self._tokens -= 1

    def pause(self, seconds: float) -> None:
        """Let nobody call for so many seconds, at most 300. A longer pause that is already on stands."""
        if not seconds > 0:
            return
        until = asyncio.get_running_loop().time() + min(seconds, LONGEST_PAUSE)
        if until > self._paused_until:
            self._paused_until = until
            # One call feels the way after a pause; a full burst would meet the same limit again.
            self._tokens = 1.0
            self._counted_at = until

    def paused_for(self) -> float:
        """Return the seconds until the pause that is on ends, 0 without one."""
        return max(0.0, self._paused_until - asyncio.get_running_loop().time())

    def _wait(self, now: float) -> float:
        """Count the tokens that came since the last time; return the seconds until there is one."""
        if now < self._paused_until:
            return self._paused_until - now
        if now > self._counted_at:
            self._tokens = min(self._burst, self._tokens + (now - self._counted_at) * self._rate)
            self._counted_at = now
        return 0.0 if self._tokens >= _WHOLE else (1 - self._tokens) / self._rate
