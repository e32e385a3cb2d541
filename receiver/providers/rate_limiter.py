"""How often a provider may be called: a token bucket whose waiters take turns."""

import asyncio
import math
from collections import deque
from collections.abc import Hashable
from contextlib import suppress
from typing import Protocol

from receiver.domain.fair_queue import FairQueue
from receiver.errors import StorageUnavailable

LONGEST_PAUSE = 300.0
"""Seconds; a provider that asks for more is asked again by then."""
_WHOLE = 1 - 1e-6
"""A token, as far as rounding can tell: a clock that cannot show the rest of the wait would be asked for ever."""


_AHEAD_SECONDS = 0.25
"""What a process takes of the shared budget at once is for no longer than this: it may die, and others wait too."""


class SharedRateLimiter(Protocol):
    """A budget that several processes share."""

    async def reserve(self, calls: int, interval: float, burst: int) -> list[float]:
        """Take the next `calls` moments; return the seconds until each. Raises `StorageUnavailable`."""
        ...

    async def pause(self, seconds: float) -> None:
        """Let nobody call for so many seconds. Raises `StorageUnavailable`."""
        ...


class RateLimiter:
    """At most `calls_per_second` on average, and `burst` at once (by default one second's worth).

    With an `shared` that holds for all processes together; while that is not to be had, for this one alone.
    It belongs to one event loop at a time, whose monotonic clock it reads.
    """

    def __init__(
        self, calls_per_second: float, burst: int | None = None, *, shared: SharedRateLimiter | None = None
    ) -> None:
        if not (0 < calls_per_second < math.inf):
            raise ValueError("calls_per_second must be a number above 0")
        if burst is not None and burst < 1:
            raise ValueError("burst must be at least 1")
        self._rate = calls_per_second
        self._burst = float(burst if burst is not None else max(1, math.ceil(calls_per_second)))
        self._tokens = self._burst
        self._counted_at = -math.inf
        self._paused_until = -math.inf
        self._turns: FairQueue[asyncio.Future[None]] = FairQueue()
        self._giving: asyncio.Task[None] | None = None
        self._allotment = shared
        self._moments: deque[float] = deque()
        self._reserved = 0
        self._reserved_at = -math.inf
        self._telling: set[asyncio.Task[None]] = set()

    async def acquire(self, caller: Hashable = None) -> None:
        """Wait for a token and take it. Lanes take turns; within one it is first come, first served.

        So nobody at the head of a lane waits for more than one call of each other lane, however many wait there.
        Who is cancelled while it waits takes no token.
        """
        if self.is_ready():
            self._take()
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.add(caller, turn)
        if self._giving is None or self._giving.done():
            self._giving = asyncio.create_task(self._give())
        try:
            await turn
        finally:
            self._turns.discard(caller, turn)

    def is_ready(self) -> bool:
        """Say whether there is a token now for who asks next: nobody waits, and nobody else need be asked for one."""
        now = asyncio.get_running_loop().time()
        self._forget_missed(now)
        if self._turns or (self._allotment is not None and not self._moments):
            return False
        return self._wait(now) <= 0

    async def _give(self) -> None:
        """Give tokens away as they come, to whoever's turn it then is, until nobody waits."""
        try:
            while self._turns:
                await self._await_token()
                if self._turns:
                    self._take()
                    self._turns.take().set_result(None)
        except Exception as error:
            while self._turns:
                self._turns.take().set_exception(error)

    async def _await_token(self) -> None:
        # No event could signal a token: its time is known, until a pause moves it.
        clock = asyncio.get_running_loop().time
        await self._reserve()
        while (wait := self._wait(clock())) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait)

    async def _reserve(self) -> None:
        """Take moments of the shared budget, if there is one and it is to be had."""
        if self._allotment is None or self._moments:
            return
        asked = asyncio.get_running_loop().time()
        calls = min(max(len(self._turns), self._likely(asked)), max(1, math.ceil(self._rate * _AHEAD_SECONDS)))
        self._reserved, self._reserved_at = calls, asked
        with suppress(StorageUnavailable):
            waits = await self._allotment.reserve(calls, 1 / self._rate, int(self._burst))
            self._moments.extend(asked + wait for wait in waits)

    def _likely(self, now: float) -> int:
        """Return how many calls are to be expected: twice as many as last time, if those were soon used up."""
        return 2 * self._reserved if now - self._reserved_at < _AHEAD_SECONDS / 2 else 0

    def _forget_missed(self, now: float) -> None:
        # Moments that nobody came for would make a burst, some day, of which the others know nothing.
        while self._moments and self._moments[0] < now - _AHEAD_SECONDS:
            self._moments.popleft()

    def _take(self) -> None:
        if self._moments:
            self._moments.popleft()
        else:
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
            if self._allotment is not None:
                telling = asyncio.create_task(_tell(self._allotment, min(seconds, LONGEST_PAUSE)))
                self._telling.add(telling)
                telling.add_done_callback(self._telling.discard)

    def paused_for(self) -> float:
        """Return the seconds until the pause that is on ends, 0 without one."""
        return max(0.0, self._paused_until - asyncio.get_running_loop().time())

    def _wait(self, now: float) -> float:
        """Return the seconds until there is a token, which may be a moment of the shared budget."""
        if now < self._paused_until:
            return self._paused_until - now
        if self._moments:
            return self._moments[0] - now
        if now > self._counted_at:
            self._tokens = min(self._burst, self._tokens + (now - self._counted_at) * self._rate)
            self._counted_at = now
        return 0.0 if self._tokens >= _WHOLE else (1 - self._tokens) / self._rate


async def _tell(shared: SharedRateLimiter, seconds: float) -> None:
    with suppress(StorageUnavailable):  # the others will hear it from the provider themselves
        await shared.pause(seconds)
