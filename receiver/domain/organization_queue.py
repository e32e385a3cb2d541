"""The deliveries of one organization: which of its endpoints has the next turn, and what it may use and spend.

Why attempts that fail are counted apart. A failed attempt costs as much as one that succeeds (a connection, a commit,
records), and brings nothing. One endpoint that fails is sent to one at a time, yet a thousand of them on a closed port
fail a thousand times as often. So an organization may fail `FAILURES_A_SECOND` times a second; beyond that those of its
endpoints whose last attempt failed, and those not tried yet, wait for their turn at that pace, and those that work go
on. An attempt that succeeds costs nothing of it: new endpoints that work are as fast as others.
"""

import math
from collections import OrderedDict
from collections.abc import Callable

from receiver.domain.endpoint_queue import Standing
from receiver.domain.load_shares import Use
from receiver.domain.pace import Pace
from receiver.domain.shared_pool import PoolShare

FAILURES_A_SECOND = 100.0
"""How many attempts of one organization may fail a second, in one process."""
ATTEMPT_COST = 2.5
"""Of an attempt and the storing of its outcome (`receiver.domain.load_shares`)."""
_FAILURES_AT_ONCE = 2.0
"""That many seconds' worth may fail at once."""


class OrganizationQueue:
    """The turns of one organization's endpoints, its share of the attempts in flight, and its rates."""

    def __init__(self, use_of_process: Callable[[], Use]) -> None:
        self._use_of_process = use_of_process
        self.share = PoolShare()
        self.held = 0
        """The deliveries in memory, waiting and in flight."""
        self.begun = 0
        """The attempts begun so far."""
        self.pace = Pace(None)
        self.timer_at = math.inf
        self._failures = Pace(FAILURES_A_SECOND, _FAILURES_AT_ONCE)
        self._rings: tuple[OrderedDict[int, None], ...] = tuple(OrderedDict() for _ in Standing)
        self._turn = 0

    def ring(self, standing: Standing) -> OrderedDict[int, None]:
        """Return the keys of the endpoints of this standing that have a delivery to send, in the order of turns."""
        return self._rings[standing]

    def ready_at(self, now: float) -> float | None:
        """Return when one of its endpoints may have a turn (`now`: at once); None if none waits for one."""
        if not any(self._rings):
            return None
        ready_at = max(self.pace.ready_at(now), self._use_of_process().pace.ready_at(now))
        return ready_at if self._rings[Standing.WORKS] else max(ready_at, self._failures.ready_at(now))

    def next_endpoint(self, now: float) -> int | None:
        """Remove and return the key of the endpoint whose turn it is; None if none may have one now."""
        may_fail = self._failures.ready_at(now) <= now
        for _ in self._rings:
            ring = self._rings[self._turn]
            self._turn = (self._turn + 1) % len(self._rings)
            if ring and (may_fail or ring is self._rings[Standing.WORKS]):
                return ring.popitem(last=False)[0]
        return None

    def began(self, now: float) -> None:
        """Count an attempt that begins now."""
        self.begun += 1
        self.pace.spend(now)
        self._use_of_process().begin(now, ATTEMPT_COST)

    def unsent(self) -> None:
        """Take back what was counted for an attempt that was not made."""
        self.begun -= 1
        self.pace.take_back()

    def failed(self, now: float) -> None:
        """Count an attempt that failed."""
        self._failures.spend(now)

    def is_idle(self, now: float) -> bool:
        """Return whether nothing of it is held or has to be remembered."""
        return not (self.held or self.share.used) and self.pace.is_unspent(now) and self._failures.is_unspent(now)
