"""Who uses most of a process is slowed while it is late, so that others are not.

One event loop and one writer serve all organizations. What one of them asks for takes several turns of the loop and
waits for one or two batches of the writer. An organization that always has work, requests as well as deliveries, makes
every turn and every batch long, and each request of the others waits through several of them. So both are measured
(`receiver.workers.load_keeper`), and while one of them is late, each organization that uses more than an equal share,
and well more than it may use always, gets a pace, which slows until they are in time again, and quickens from then on
until it is not needed. No organization gets one while it alone has work, and nothing is refused.

Use is counted in costs; 1 is about a millisecond of the loop. `now` is in seconds of a monotonic clock.
"""

import math
from enum import Enum

from receiver.domain.pace import Pace

LATE_SECONDS = 0.0015
"""The loop is late when callbacks come later than this in the mean."""
_BUSY = 0.4
"""The part of the time for which the loop's thread must compute in the mean; else something else makes it late."""
_LONG_BATCH_SECONDS = 0.01
_LONG_BATCH_TIMES = 3.0
"""The writer is late when a batch takes longer than this in the mean, and this many times as long as lately at best."""
_BEST_GROWS = 1.0002
"""By this the best grows at each measurement, so that it follows a disk or a database that has become slower."""
_NEW = 0.2
"""The weight of one measurement in a mean."""
_FIRST, _SLOWER, _QUICKER = 0.5, 0.9, 1.01
_UNNEEDED = 4.0
"""A pace is dropped when it is this many times what is used."""
LEAST = 330.0
"""All paces together are at least this cost a second, so that organizations that are slowed still get a third of it."""
_LEAST_TIMES = 1.25
"""Who uses no more than this many times what it may always use is not slowed: others would gain hardly anything."""
LONGEST_WAIT = 10.0
"""In seconds. What is used beyond it is not waited for, so that an organization has not to wait long after a flood."""
_KEPT_SECONDS = 60.0
"""An organization without work for this time does not count any more."""


class Load(Enum):
    """What an organization uses a process for; each has a pace of its own, so that one does not keep up the other."""

    REQUESTS = "requests"
    DELIVERIES = "deliveries"


class Use:
    """What one organization uses a process for in one way: about the cost of the last second, and its pace."""

    def __init__(self) -> None:
        self.cost = 0.0
        self.at = -math.inf
        self.pace = Pace(None, burst=0.1)

    def begin(self, now: float, cost: float) -> float:
        """Count work that comes next; return how many seconds it has to wait."""
        self.cost += cost
        self.at = now
        wait = self.pace.ready_at(now) - now
        if wait >= LONGEST_WAIT:
            return LONGEST_WAIT
        self.pace.spend(now, cost)
        return wait

    def slow_down(self, least: float) -> None:
        """Set a slower pace than before, or a pace below what is used, but at least `least` a second."""
        rate = self.pace.rate
        self.pace.rate = max(least, self.cost * _FIRST if rate is None else min(rate, self.cost) * _SLOWER)

    def quicken(self) -> None:
        """Set a quicker pace, or none if it is not needed."""
        if self.pace.rate is not None:
            rate = self.pace.rate * _QUICKER
            self.pace.rate = None if rate > _UNNEEDED * self.cost + LEAST else rate


class LoadShares:
    """What organizations use of a process, by their row key."""

    def __init__(self) -> None:
        self._uses: dict[int, dict[Load, Use]] = {}
        self._lag = 0.0
        self._busy = 0.0
        self._batch = 0.0
        self._best_batch = math.inf

    def use(self, organization: int, load: Load) -> Use:
        """Return the use of an organization; it stays the same object while the organization has work."""
        uses = self._uses.get(organization)
        if uses is None:
            uses = self._uses[organization] = {each: Use() for each in Load}
        return uses[load]

    @property
    def is_shared(self) -> bool:
        """Whether several organizations have work."""
        return len(self._uses) > 1

    def loop_measured(self, lag: float, busy: float) -> None:
        """Take that the loop was late by `lag` seconds, and its thread computed for this part of the time (0 to 1)."""
        self._lag += _NEW * (lag - self._lag)
        self._busy += _NEW * (busy - self._busy)

    def writer_measured(self, batch: float) -> None:
        """Take how many seconds the last batches of the writer took in the mean."""
        self._batch += _NEW * (batch - self._batch)
        self._best_batch = min(self._best_batch * _BEST_GROWS, max(self._batch, batch))

    @property
    def slowed(self) -> int:
        """How many organizations have a pace."""
        return sum(any(use.pace.rate is not None for use in uses.values()) for uses in self._uses.values())

    @property
    def is_late(self) -> bool:
        """Whether the loop or the writer is late."""
        is_writer_late = self._batch > max(_LONG_BATCH_SECONDS, _LONG_BATCH_TIMES * self._best_batch)
        return is_writer_late or (self._lag > LATE_SECONDS and self._busy > _BUSY)

    def adjust(self, seconds: float, now: float) -> None:
        """Set the paces by what was measured; `seconds` have passed since the last time."""
        costs = {key: sum(use.cost for use in uses.values()) for key, uses in self._uses.items()}
        equal = sum(costs.values()) / max(1, len(costs))
        own_least = LEAST / max(1, len(costs))  # in all; each load has its part of it, and half of it at least
        is_late = self.is_late
        for key, cost in costs.items():
            for use in self._uses[key].values():
                if not self.is_shared:
                    use.pace.rate = None
                elif is_late and cost > max(equal, _LEAST_TIMES * own_least):
                    use.slow_down(own_least * max(use.cost / cost, 1 / len(Load)))
                else:
                    use.quicken()
                use.cost *= math.exp(-seconds)
            if now - max(use.at for use in self._uses[key].values()) > _KEPT_SECONDS:
                for use in self._uses.pop(key).values():
                    use.pace.rate = None
