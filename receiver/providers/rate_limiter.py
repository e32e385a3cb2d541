"""How often a provider may be called: a token bucket whose waiting callers take turns.

Why the shared limit works as it does. A provider limits an account, not a process, so all replicas together must keep
to one rate. Asking the database for every call would cost a round trip a call and make PostgreSQL the bottleneck.
Instead a process reserves the next few send times at once: the shared row holds the time of the next free slot, a
reservation moves it on by `calls` intervals, and the process then sends at the times that it got without asking again.
It reserves at most `AHEAD_SECONDS` worth of calls, because slots of a process that dies are lost, and because other
processes wait for theirs. A process that keeps using its slots up reserves twice as many the next time, so that a busy
one asks rarely and a quiet one wastes little. A slot that was not used in time is dropped: slots saved up would make a
burst that the other processes know nothing of. While the database cannot be reached, each process falls back to its
own token bucket: calls go on, at up to N times the rate, and the provider's 429 is obeyed.
"""

import asyncio
import math
from collections import deque
from collections.abc import Hashable
from contextlib import suppress
from typing import Protocol

from receiver.domain.call_budget import AHEAD_SECONDS, LONGEST_PAUSE
from receiver.domain.fair_queue import FairQueue
from receiver.errors import StorageUnavailable
from receiver.telemetry.metrics import (
    counted,
    provider_limit,
    provider_pauses,
    provider_turns,
    provider_wait,
    timed,
)

_ONE_TOKEN = 1 - 1e-6
"""One token, within rounding: a wait too short for the clock to resolve would otherwise never end."""


class SharedRateLimiter(Protocol):
    """A rate limit that several processes share."""

    async def reserve(self, calls: int, interval: float, burst: int) -> list[float]:
        """Reserve the next `calls` slots; return the seconds until each. Raises `StorageUnavailable`."""
        ...

    async def pause(self, seconds: float) -> None:
        """Grant no slot within the next `seconds`. Raises `StorageUnavailable`."""
        ...


class RateLimiter:
    """At most `calls_per_second` on average, and `burst` at once (by default one second's worth).

    With `shared` the limit is for all processes together; while the shared limit is unavailable, for this process
    alone. An instance belongs to one event loop, whose monotonic clock it reads. `provider` is whose limit it is, for
    the metrics; with `is_of_account` it is that of one of the provider's further accounts, which share its counts.
    """

    def __init__(
        self,
        calls_per_second: float,
        burst: int | None = None,
        *,
        shared: SharedRateLimiter | None = None,
        provider: str = "",
        is_of_account: bool = False,
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
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()
        self._serving: asyncio.Task[None] | None = None
        self._shared = shared
        self._slots: deque[float] = deque()
        self._reserved = 0
        self._reserved_at = -math.inf
        self._sharing_pauses: set[asyncio.Task[None]] = set()
        self._wait_seconds = timed(provider_wait, provider)
        self._turns, self._pauses = counted(provider_turns, provider), counted(provider_pauses, provider)
        if not is_of_account:
            provider_limit.labels(provider).set(calls_per_second)

    async def acquire(self, caller: Hashable = None) -> None:
        """Wait for a token and take it. Callers take turns; the calls of one caller are served in order.

        So the first call of a caller waits for at most one call of each other caller, however many of theirs wait.
        A call that is cancelled while it waits takes no token.
        """
        if self.is_ready():
            self._take()
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(caller, turn)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        try:
            await turn
        finally:
            self._waiting.discard(caller, turn)

    async def acquire_within(self, seconds: float, caller: Hashable = None) -> bool:
        """Wait for a token at most this long; return whether there was one. One that is ready is taken in any case."""
        began = asyncio.get_running_loop().time()
        try:
            return await self._acquire_within(seconds, caller)
        finally:
            self._wait_seconds.observe(asyncio.get_running_loop().time() - began)

    async def _acquire_within(self, seconds: float, caller: Hashable) -> bool:
        if self.is_ready():
            self._take()
            return True
        if self.paused_for() > seconds:
            return False
        try:
            async with asyncio.timeout(seconds):
                await self.acquire(caller)
        except TimeoutError:
            return False
        return True

    def is_ready(self) -> bool:
        """Return whether `acquire` would return at once: no call waits, and a token is in this process already."""
        now = asyncio.get_running_loop().time()
        self._drop_missed_slots(now)
        if self._waiting or (self._shared is not None and not self._slots):
            return False
        return self._wait(now) <= 0

    async def _serve(self) -> None:
        """Hand out tokens as they become available, to the caller whose turn it is, until no call waits."""
        try:
            while self._waiting:
                await self._await_token()
                if self._waiting:
                    self._take()
                    self._waiting.take().set_result(None)
        except Exception as error:
            while self._waiting:
                self._waiting.take().set_exception(error)

    async def _await_token(self) -> None:
        # No event could signal a token: its time is known, until a pause moves it.
        clock = asyncio.get_running_loop().time
        await self._reserve()
        while (wait := self._wait(clock())) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait)

    async def _reserve(self) -> None:
        """Reserve slots of the shared limit, if there is one and it is available."""
        if self._shared is None or self._slots:
            return
        asked_at = asyncio.get_running_loop().time()
        most = max(1, math.ceil(self._rate * AHEAD_SECONDS))
        calls = min(max(len(self._waiting), self._expected_calls(asked_at)), most)
        self._reserved, self._reserved_at = calls, asked_at
        with suppress(StorageUnavailable):
            waits = await self._shared.reserve(calls, 1 / self._rate, int(self._burst))
            self._slots.extend(asked_at + wait for wait in waits)

    def _expected_calls(self, now: float) -> int:
        """Return how many calls to expect: twice as many as reserved last time, if those were used up soon."""
        return 2 * self._reserved if now - self._reserved_at < AHEAD_SECONDS / 2 else 0

    def _drop_missed_slots(self, now: float) -> None:
        while self._slots and self._slots[0] < now - AHEAD_SECONDS:
            self._slots.popleft()

    def _take(self) -> None:
        self._turns.inc()
        if self._slots:
            self._slots.popleft()
        else:
            self._tokens -= 1

    def pause(self, seconds: float) -> None:
        """Allow no call for `seconds`, at most 300. A longer pause that is already in effect stays."""
        if not seconds > 0:
            return
        until = asyncio.get_running_loop().time() + min(seconds, LONGEST_PAUSE)
        if until > self._paused_until:
            self._paused_until = until
            self._pauses.inc()
            # One call tries first after a pause; a full burst would meet the same limit again.
            self._tokens = 1.0
            self._counted_at = until
            if self._shared is not None:
                sharing = asyncio.create_task(_share_pause(self._shared, min(seconds, LONGEST_PAUSE)))
                self._sharing_pauses.add(sharing)
                sharing.add_done_callback(self._sharing_pauses.discard)

    def paused_for(self) -> float:
        """Return the seconds until the current pause ends, 0 without one."""
        return max(0.0, self._paused_until - asyncio.get_running_loop().time())

    def _wait(self, now: float) -> float:
        """Return the seconds until the next token, or the next slot of the shared limit."""
        if now < self._paused_until:
            return self._paused_until - now
        if self._slots:
            return self._slots[0] - now
        if now > self._counted_at:
            self._tokens = min(self._burst, self._tokens + (now - self._counted_at) * self._rate)
            self._counted_at = now
        return 0.0 if self._tokens >= _ONE_TOKEN else (1 - self._tokens) / self._rate


async def _share_pause(shared: SharedRateLimiter, seconds: float) -> None:
    with suppress(StorageUnavailable):  # the provider's own 429 stops the other processes too
        await shared.pause(seconds)
