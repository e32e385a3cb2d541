"""How many open tasks and stored bytes each organization has, in memory: no create waits for a count.

Both are counted in the background, and what this process created since is added. So they lag: by what other processes
created since the last count, and by what has ended, grown or been purged since. Open tasks are counted of organizations
that create, up to what their limit needs, in an index. Bytes are summed over the whole table, page by page, because no
index has them; that reads every row once in a while, at a tenth of one reading connection's time at most.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from receiver.domain.organization_limits import OrganizationLimits
from receiver.storage.database import Database
from receiver.storage.organizations import count_open_tasks, stored_bytes_after

MOST_COUNTED = 1_000_000
"""Open tasks are counted up to their limit, and where that is greater or there is none, up to this number."""
_COUNT_SECONDS = 1.0
"""Between two counts of one organization at least. A count that takes long is repeated more rarely."""
_STALE_SECONDS = 30.0
"""After this time the next create asks for a count, far from the limit too: other processes may have created."""
_SUM_SECONDS = 60.0
_SUMMED_AT_ONCE = 1000
_FEWEST_AT_ONCE = 50
_MOST_AT_ONCE = 20_000
_QUICK_SECONDS = 0.01
_SLOW_SECONDS = 0.05
_PAUSES = 10
"""How many times as long as the reading before it a pause is."""


@dataclass(slots=True)
class _Open:
    """The open tasks of one organization: `counted` at `at`, and `made` by this process since."""

    counted: int = 0
    made: int = 0
    at: float = float("-inf")
    not_before: float = float("-inf")


class OrganizationUsage:
    """What organizations use. `limits_of` says up to where to count."""

    def __init__(
        self,
        database: Database,
        limits_of: Callable[[int], OrganizationLimits],
        *,
        sum_seconds: float = _SUM_SECONDS,
    ) -> None:
        self._database = database
        self._limits_of = limits_of
        self._sum_seconds = sum_seconds
        self._open: defaultdict[int, _Open] = defaultdict(_Open)
        self._asked: set[int] = set()
        self._wake = asyncio.Event()
        self._summed: Counter[int] = Counter()
        self._partial: Counter[int] = Counter()
        self._made_bytes: Counter[int] = Counter()

    def open_tasks(self, organization_id: int) -> int:
        """Return how many tasks have not ended, about."""
        each = self._open[organization_id]
        return each.counted + each.made

    def stored_bytes(self, organization_id: int) -> int:
        """Return how many bytes the organization's tasks have, about; after a start less, until all were summed."""
        known = max(self._summed[organization_id], self._partial[organization_id])
        return known + self._made_bytes[organization_id]

    def add(self, organization_id: int, tasks: int, size: int) -> None:
        """Note that this process creates tasks of `size` bytes; have the open ones counted if that may matter."""
        self._made_bytes[organization_id] += size
        each = self._open[organization_id]
        each.made += tasks
        limit = self._limits_of(organization_id).open_tasks
        if limit is not None and ((each.counted + each.made) * 2 >= limit or monotonic() - each.at >= _STALE_SECONDS):
            self.count_soon(organization_id)

    def count_soon(self, organization_id: int) -> None:
        """Have the open tasks of an organization counted in the background."""
        self._asked.add(organization_id)
        self._wake.set()

    async def count(self, organization_id: int) -> int:
        """Count the open tasks of an organization now; return their number. Raises `StorageUnavailable`."""
        limit = self._limits_of(organization_id).open_tasks
        each = self._open[organization_id]
        began, made = monotonic(), each.made
        most = MOST_COUNTED if limit is None else min(MOST_COUNTED, limit + 1)
        rows = await self._database.read(count_open_tasks(organization_id, most))
        each.counted, each.at = int(rows[0]["count"]), monotonic()
        each.made -= made
        each.not_before = each.at + max(_COUNT_SECONDS, (each.at - began) * _PAUSES)
        return each.counted + each.made

    async def count_tasks(self) -> None:
        """Count the open tasks of the organizations for which that was asked, until cancelled."""
        while True:
            await self._wake.wait()
            soonest = min(self._open[each].not_before for each in self._asked)
            if (wait := soonest - monotonic()) > 0:
                await asyncio.sleep(wait)
                continue
            organization_id = min(self._asked, key=lambda each: self._open[each].not_before)
            self._asked.discard(organization_id)
            if not self._asked:
                self._wake.clear()
            await self.count(organization_id)

    async def sum_bytes(self) -> None:
        """Sum the bytes of all tasks again and again, until cancelled."""
        while True:
            took = await self._sum_once()
            await asyncio.sleep(max(self._sum_seconds, took * _PAUSES))

    async def _sum_once(self) -> float:
        """Read the whole table once, page by page; return how long reading took, in seconds."""
        self._partial.clear()
        after, rows, took = 0, _SUMMED_AT_ONCE, 0.0
        while True:
            began = monotonic()
            found = await self._database.read(stored_bytes_after(after, rows))
            seconds = monotonic() - began
            took += seconds
            for each in found:
                self._partial[each["organization_id"]] += int(each["bytes"])
            if sum(each["tasks"] for each in found) < rows:
                # What this process created until now is among the rows that were read.
                self._summed, self._partial = self._partial, Counter()
                self._made_bytes.clear()
                return took
            after = max(each["last"] for each in found)
            if seconds > _SLOW_SECONDS:
                rows = max(_FEWEST_AT_ONCE, rows // 2)
            elif seconds < _QUICK_SECONDS:
                rows = min(_MOST_AT_ONCE, rows * 2)
            await asyncio.sleep(seconds * _PAUSES)
